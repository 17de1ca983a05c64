"""Resolve `${oc.env:NAME}` (environment variables) in conf/ files and on command lines, and record which were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from sdsbench.core.errors import ConfigError, Problem

_read: list[str] = []


def environment(name: str, *default: Any) -> str | None:
    """OmegaConf's `${oc.env:NAME,default}`; while `reading_environment` is active, the name is recorded."""
    _read.append(name)
    return oc.env(name, *default)


@contextmanager
def reading_environment() -> Iterator[list[str]]:
    """While active, collects the names of environment variables that are read."""
    _read.clear()
    yield _read


def with_environment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve every `${...}` in the values. Raises ConfigError if an environment variable is not set."""
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
    """Replace OmegaConf's `oc.env` resolver by `environment` (idempotent)."""
    OmegaConf.register_new_resolver("oc.env", environment, replace=True)
