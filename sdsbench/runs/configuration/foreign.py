"""Restrict YAML files of other authors: no Hydra settings, no environment variables in records, no huge files.

Group files may only set values of a run. Hydra's own keys (callbacks, launchers, environment variables of jobs) are
accepted on the command line only. Keys that place a run (folders, caches) may refer to environment variables and are
stored unresolved; keys that enter a run's id or record may not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sdsbench.core.errors import Problem
from sdsbench.core.leaves import leaves
from sdsbench.core.yaml_text import file_problem
from sdsbench.runs.configuration.environment import reading_environment
from sdsbench.runs.configuration.identity import PLACING

_OF_HYDRA = ("runtime", "overrides", "job.override_dirname")
"""Keys that Hydra sets itself."""


def file_problems(folders: Sequence[str]) -> Iterator[Problem]:
    """One problem for each file in the user's folders that is too large; any file may be in another's defaults list."""
    for folder in map(Path, folders):
        for path in sorted(folder.rglob("*.yaml")):
            if path.is_file() and (accepted := file_problem(path)):
                name = path.relative_to(folder)
                yield Problem(name.parts[0] if len(name.parts) > 1 else "--config-dir", name.as_posix(), accepted)


def hydra_problems(composed: DictConfig, plain: DictConfig) -> Iterator[Problem]:
    """Hydra's keys that the user's files set: those that differ between `composed` and `plain`, made without them."""
    ours, theirs = (dict(leaves(OmegaConf.to_container(tree.hydra, resolve=False))) for tree in (plain, composed))
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key) and not key.startswith(_OF_HYDRA):
            advice = "Keys of Hydra itself are set on the command line, with -m."
            yield Problem(f"hydra.{key}", theirs.get(key), "nothing: a YAML file of a group sets keys of a run", advice)


def without_hydra(composed: DictConfig) -> DictConfig:
    """The configuration without the `hydra` section."""
    with open_dict(composed):
        del composed["hydra"]
    return composed


def environment_problems(tree: DictConfig) -> Iterator[Problem]:
    """Keys that depend on environment variables, the clock or Hydra's run state, unless they only place the run."""
    for name, section, key in keys_of(tree):
        text = _raw(section._get_node(key))
        if name in PLACING or "${" not in str(text):
            continue
        with reading_environment() as read:
            try:
                value = section[key]
                if OmegaConf.is_config(value):
                    OmegaConf.to_container(value, resolve=True)
            except (OmegaConfBaseException, KeyError):  # reported when the value is used
                continue
        if read or "${hydra:" in str(text) or "${now:" in str(text):
            advice = "What names a run or enters its record must be the same everywhere."
            yield Problem(name, text, "a value without the environment, the clock or Hydra's surroundings", advice)


def keys_of(section: DictConfig, prefix: str = "") -> Iterator[tuple[str, DictConfig, Any]]:
    """(dotted name, its section, its key there) of every key. A key may hold dots itself, as names of layers do."""
    for key in section:
        name, node = f"{prefix}{key!s}", section._get_node(key)
        yield name, section, key
        if isinstance(node, DictConfig) and not (node._is_interpolation() or node._is_missing() or node._is_none()):
            yield from keys_of(node, f"{name}.")


def unresolved(tree: DictConfig) -> dict[str, str]:
    """Placing keys that refer to environment variables, with their unresolved text."""
    found = {name: _raw(section._get_node(key)) for name, section, key in keys_of(tree) if name in PLACING}
    return {key: text for key, text in found.items() if isinstance(text, str) and "${oc.env:" in text}


def raw_values(tree: DictConfig) -> dict[str, Any]:
    """The unresolved value of every dotted key (lists included); None for a section."""
    return {name: _raw(section._get_node(key)) for name, section, key in keys_of(tree)}


def _raw(node: Any) -> Any:
    if isinstance(node, ListConfig):
        return OmegaConf.to_container(node, resolve=False)
    return node._value() if not isinstance(node, DictConfig) else None
