"""Modules outside this package that register methods, tasks, data sets, models, tables, claims or figures.

A plugin is a module. Importing it registers what it brings, by the same decorators and functions that this package's
own files use. A folder `conf` beside the module's file is searched for YAML before ours. A plugin is loaded in one of
two ways:

    an installed package with   [project.entry-points."sdsbench.plugins"]  my_name = "my_package"
    the key                     plugins=[my_module]   of a run, for a module that can be imported (PYTHONPATH)

Plugins are the user's own code and are trusted.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from sdsbench.core.errors import ConfigError, Problem, Refused
from sdsbench.core.source_hash import source_file

GROUP = "sdsbench.plugins"


@cache
def installed() -> tuple[str, ...]:
    """Modules of the plugins that installed packages declare, in the order of their names."""
    points = importlib.metadata.entry_points(group=GROUP)
    return tuple(point.module for point in sorted(points, key=lambda point: point.name))


@cache
def load_installed() -> None:
    """Import every installed plugin, once. Raises ConfigError where one cannot be imported."""
    load(installed())


def load(modules: Sequence[str]) -> None:
    """Import plugins by module name. Raises ConfigError naming the module and its error."""
    for module in modules:
        _load(module)


@cache
def _load(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:  # a plugin's code may raise anything
        raise ConfigError(
            [
                Problem(
                    "plugins",
                    module,
                    "modules that Python can import",
                    f"Importing it raised {type(error).__name__}: {error}. Is it installed, or in PYTHONPATH?",
                )
            ]
        ) from error


def places_of(module: str) -> list[Path]:
    """Where Python would look for a module (files without their endings), found without importing anything."""
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # not a module name; importing it reports that
        return []
    if spec is None:
        return []
    places = [Path(folder, *parts).absolute() for folder in spec.submodule_search_locations or ()]
    return [*places, Path(spec.origin).absolute()] if spec.origin and spec.has_location else places


def refuse_bundled(what: str, modules: Sequence[str], folder: Path) -> None:
    """Raises Refused if a plugin lies beside or below the plan or run in `folder`: plugins must be the user's own code,
    and a plan or run from others is only data. `what` names the plan or run.

    `python -m` also searches the working folder, where files from others may have been put.
    """
    own, here = folder.resolve(), Path.cwd()
    beside = here / own.relative_to(here).parts[0] if own.is_relative_to(here) and own != here else own
    for module in modules:
        for place in places_of(module):
            below = place.is_relative_to(beside) and "." in module
            if below or place.resolve().is_relative_to(own):
                raise Refused(
                    f"{what} needs the plugin {module}, which lies where it does itself. It is data and brings no "
                    "code: look at that file and install it, or put its folder on PYTHONPATH."
                )


def conf_folders(modules: Sequence[str]) -> list[Path]:
    """Folders of YAML files that plugins bring: of the given modules, then of the installed ones."""
    folders = []
    for module in dict.fromkeys([*modules, *installed()]):
        path = source_file(module)
        if path is not None and (folder := path.parent / "conf").is_dir():
            folders.append(folder)
    return folders
