"""Registries that map names to what this package and plugins bring: methods, tasks, data sets, tables, figures ..."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from sdsbench.core import plugins


class Named(Protocol):
    """A configuration that says what it configures."""

    @property
    def name(self) -> str: ...


Value = TypeVar("Value")
Kind = TypeVar("Kind")
Config = TypeVar("Config", bound=Named)
Class = TypeVar("Class", bound=type[Any])


class Registry(Generic[Value]):
    """Maps names to registered values of one kind.

    `package` contains this project's own entries, one module each, imported when a name is first looked up. `module_of`
    maps a name to the module that registers it (default: the module of that name). Plugins are loaded if the name is
    still unknown.
    """

    def __init__(
        self, kind: str, package: str | None = None, module_of: Callable[[str], str] = lambda name: name
    ) -> None:
        self.kind, self.package, self._module_of = kind, package, module_of
        self._values: dict[str, Value] = {}
        self._whole = False  # whether all modules of the package were imported

    def register(self, name: str, value: Value) -> None:
        """Make `value` known as `name`. Raises ValueError if another value has the name."""
        known = self._values.get(name)
        if known is not None and known != value and _origin(known) != _origin(value):
            raise ValueError(f"{self.kind} {name!r} is registered twice: by {_origin(known)} and by {_origin(value)}")
        self._values[name] = value

    def lookup(self, name: str) -> Value:
        """The value registered as `name`. Raises KeyError if there is none."""
        if name not in self._values and self.package is not None:
            self._import(self._module_of(name))
        if name not in self._values:
            plugins.load_installed()
        return self._values[name]

    def names(self) -> list[str]:
        """Every name, sorted; imports all modules of the package and all installed plugins."""
        if self.package is not None and not self._whole:
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                self._import(module.name)
            self._whole = True
        plugins.load_installed()
        return sorted(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _import(self, module: str) -> None:
        name = f"{self.package}.{module}"
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise


class ClassRegistry(Registry[tuple[type[Kind], type[Config]]], Generic[Kind, Config]):
    """Classes by name, each with the class of its configuration."""

    def decorator(self, name: str, config: type[Config]) -> Callable[[Class], Class]:
        """Class decorator: make a class known as `name`. Raises ValueError where another one has the name."""

        def add(found: Class) -> Class:
            found.name = name
            self.register(name, (found, config))
            return found

        return add

    def build(self, config: Config) -> Kind:
        """What a configuration describes."""
        return self.lookup(config.name)[0](config)  # type: ignore[call-arg]


def _origin(value: object) -> str:
    """The module and name of a class or function, or of the first one in a tuple; the value's text for other things."""
    first = value[0] if isinstance(value, tuple) and value else value
    return f"{first.__module__}.{first.__qualname__}" if isinstance(first, type) or callable(first) else repr(first)
