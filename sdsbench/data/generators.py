"""Functions that generate rows for a data set of the catalogue (data.source=embedded), registered by plugins.

A generator is `rows(split, count, seed=0) -> list of rows` in the columns of the set. It is registered as text,
"module:function", so that nothing is imported before rows are made.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

from sdsbench.core.registry import Registry

_GENERATORS: Registry[str] = Registry("generator of embedded data")


def register_generator(data_set: str, function: str) -> None:
    """Let `function` ("module:function") generate the rows of the catalogue's set `data_set`."""
    _GENERATORS.register(data_set, function)


def generated_sets() -> list[str]:
    """Names of the sets that can be generated."""
    return _GENERATORS.names()


def is_generated(data_set: str) -> bool:
    """Whether some generator makes this set."""
    try:
        return bool(_GENERATORS.lookup(data_set))
    except KeyError:
        return False


def generator_name(data_set: str) -> str:
    """ "module:function" of a set's generator. Raises KeyError where there is none."""
    return _GENERATORS.lookup(data_set)


def generator_of(data_set: str) -> Callable[..., list[dict[str, Any]]]:
    """The function that makes a set's rows. Raises KeyError where there is none."""
    return pkgutil.resolve_name(generator_name(data_set))
