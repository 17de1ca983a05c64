"""The groups of conf/ and their choices, read from file names without importing Hydra, which is slow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sdsbench.core import plugins
from sdsbench.core.errors import Problem
from sdsbench.core.package import bundled_folder
from sdsbench.core.spelling import nearest

GROUPS = ("model", "method", "task", "tracker", "protocol", "variant")


def conf_folder() -> Path:
    """The folder of YAML files: beside the package in a checkout, inside it in an installed wheel."""
    return bundled_folder("conf")


def options(group: str, config_dirs: Sequence[str] = ()) -> list[str]:
    """The choices of a group: `glue/rte` for conf/task/glue/rte.yaml."""
    found = set()
    for folder in (conf_folder(), *map(Path, config_dirs), *plugins.conf_folders([])):
        root = folder / group
        found |= {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")}
    return sorted(found)


def unknown(key: str, names: Sequence[str], group: str, config_dirs: Sequence[str]) -> list[Problem]:
    """A problem for each of the names, given by the user as `key`, that is no choice of the group."""
    known = options(group, config_dirs)
    return [Problem(key, name, ", ".join(known), nearest(name, known)) for name in names if name not in known]


def own_groups(config_dirs: Sequence[str]) -> Iterator[str]:
    """Groups that exist in the user's folders only, such as `experiment`, from which `+experiment=NAME` chooses."""
    for folder in map(Path, config_dirs):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.is_dir() and not (conf_folder() / path.name).is_dir() and any(path.rglob("*.yaml")):
                yield path.name
