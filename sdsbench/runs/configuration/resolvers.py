"""Resolvers that conf/ files may use inside ${...}."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from sdsbench.core.errors import ConfigError, Problem

_read: list[str] = []


def by(key: str, values: dict[str, Any]) -> Any:
    """`${by:${method.name},{lora:16,default:4}}`: the value for a key, else the one for `default`.

    Raises KeyError where neither is given.
    """
    if key in values:
        return values[key]
    if "default" in values:
        return values["default"]
    raise KeyError(f"no value for {key!r} and no default among {', '.join(map(str, values))}")


def times(*factors: float) -> float:
    """`${times:2,${method.rank}}`: the product."""
    product: float = 1
    for factor in factors:
        product *= factor
    return product


def environment(name: str, *default: Any) -> str | None:
    """OmegaConf's `${oc.env:NAME,default}`, which is noticed inside `reading_environment`."""
    _read.append(name)
    return oc.env(name, *default)


@contextmanager
def reading_environment() -> Iterator[list[str]]:
    """The names that are read from the environment inside."""
    _read.clear()
    yield _read


def with_environment(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with every `${...}` in them resolved. Raises ConfigError where a variable is not set."""
    register()
    found, problems = {}, []
    for key, value in values.items():
        try:
            found[key] = OmegaConf.to_container(OmegaConf.create([value]), resolve=True)[0]  # type: ignore[index]
        except (OmegaConfBaseException, KeyError) as error:
            problems.append(Problem(key, value, "an environment variable that is set", " ".join(str(error).split())))
    if problems:
        raise ConfigError(problems)
    return found


def register() -> None:
    """Make the resolvers known to OmegaConf (idempotent)."""
    OmegaConf.register_new_resolver("by", by, replace=True)
    OmegaConf.register_new_resolver("times", times, replace=True)
    OmegaConf.register_new_resolver("oc.env", environment, replace=True)
