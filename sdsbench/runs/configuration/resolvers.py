"""Resolvers that conf/ files may use inside ${...}."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


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


def register() -> None:
    """Make the resolvers known to OmegaConf (idempotent)."""
    OmegaConf.register_new_resolver("by", by, replace=True)
    OmegaConf.register_new_resolver("times", times, replace=True)
