"""Overrides -> composed configuration -> typed RunConfig, with every problem reported at once.

All overrides are first composed together. Hydra reports only the first problem; therefore, if this composition fails or
contains a wrong value, the overrides are tested separately, and all that Hydra rejects are reported. Each section then
validates itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdsbench.core import plugins
from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.section import section_type
from sdsbench.core.spelling import nearest
from sdsbench.runs.configuration import environment
from sdsbench.runs.configuration.choices import GROUPS, conf_folder, options, own_groups
from sdsbench.runs.configuration.combinations import cross_problems
from sdsbench.runs.configuration.foreign import (
    environment_problems,
    file_problems,
    hydra_problems,
    keys_of,
    without_hydra,
)
from sdsbench.runs.configuration.overrides import line_of, one_line, parse, refuse_kind, search_path, with_search_path
from sdsbench.runs.configuration.schema import PROTOCOL_TABLES, RunConfig
from sdsbench.runs.configuration.typed import typed_run

MANY = 16  # largest number of choices that a message lists; above it, the message names `sdsbench ls`


def compose_run(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> RunConfig:
    """The checked configuration of one run.

    Raises ConfigError with every problem found: unknown keys and choices, wrong types, impossible combinations.
    """
    composed, problems = compose_tree(overrides, config_dirs)
    if composed is None:
        raise ConfigError(problems)
    return to_run_config(composed, problems)


def to_run_config(composed: DictConfig, problems: Sequence[Problem] = ()) -> RunConfig:
    """Convert a composed tree to a checked RunConfig; raises ConfigError with `problems` and those found here."""
    found = list(problems)
    environment.register()
    try:
        tree = OmegaConf.to_container(composed, resolve=True)
    except (OmegaConfBaseException, KeyError) as error:
        raise ConfigError([*found, _from_omegaconf(error)]) from None
    assert isinstance(tree, dict)
    return from_tree({str(key): value for key, value in tree.items()}, found)


def from_tree(tree: dict[str, Any], problems: Sequence[Problem] = ()) -> RunConfig:
    """Convert a resolved tree (plain dicts) to a checked RunConfig; raises ConfigError with `problems` and its own."""
    if isinstance(modules := tree.get("plugins"), list):
        plugins.load([str(module) for module in modules])
    config, found = typed_run(tree)
    found = [*problems, *found]
    if config is not None:
        known = {problem.key for problem in found}
        found += [problem for problem in cross_problems(config) if problem.key not in known]
        if not found:
            return config
    raise ConfigError(found)


def compose_tree(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> tuple[DictConfig | None, list[Problem]]:
    """(Hydra's composition of the valid overrides, one problem for each of the others)."""
    environment.register()
    words, folders = with_search_path(overrides, config_dirs)
    parsed, problems = parse(words)
    modules = plugins_of(parsed)
    plugins.load(modules)
    folders += map(str, plugins.conf_folders(modules))
    if large := list(file_problems(folders)):
        return None, [*problems, *large]
    added = tuple(own_groups(folders))
    choices = [override for override in parsed if override.key_or_group in (*GROUPS, *added)]
    values = [override for override in parsed if override not in choices]
    wrong = [problem for choice in choices if (problem := _choice_problem(choice, folders, added))]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        if not wrong and not any(refuse_kind(override, ()) for override in values):
            composed = _compose([*search_path(folders), *map(line_of, parsed)])
            if isinstance(composed, DictConfig) and not any(_sets_section(override, composed) for override in values):
                return _run_keys(composed, folders, problems)
        bad = {problem.key for problem in wrong}
        groups = [line_of(choice) for choice in choices if choice.key_or_group not in bad]
        found, problems = _compose_one_by_one([*search_path(folders), *groups], values, [*problems, *wrong])
        return _run_keys(found, folders, problems) if found is not None else (None, problems)


def _run_keys(
    composed: DictConfig, folders: Sequence[str], problems: Sequence[Problem]
) -> tuple[DictConfig | None, list[Problem]]:
    """(the composition without Hydra's own keys, `problems` plus those of the user's YAML files).

    None where a file of the user's in the place of a default choice does not compose.
    """
    plain = _compose(search_path(folders)) if folders else composed
    if isinstance(plain, Exception):  # a file of a folder in the place of a default choice, which the run does not take
        return None, [*problems, Problem("--config-dir", ", ".join(folders), "files that compose", one_line(plain))]
    found = [*problems, *hydra_problems(composed, plain)]
    tree = without_hydra(composed)
    return tree, [*found, *environment_problems(tree)]


def plugins_of(parsed: Sequence[Override]) -> list[str]:
    """The modules named by `plugins=[...]`, which are imported first: other overrides may use what they register."""
    values = [override.value() for override in parsed if override.key_or_group == "plugins"]
    return [str(module) for module in values[-1]] if values and isinstance(values[-1], list) else []


def _compose_one_by_one(
    groups: Sequence[str], values: Sequence[Override], problems: Sequence[Problem]
) -> tuple[DictConfig | None, list[Problem]]:
    """Find every override that Hydra rejects: compare keys with the composed groups, then compose overrides singly."""
    found = list(problems)
    base = _compose(groups)
    if isinstance(base, Exception):
        return None, [*found, Problem("config", " ".join(groups), "files that compose", one_line(base))]
    base = without_hydra(base)
    known = flat_keys(base)
    accepted = []
    for override in values:
        problem = key_problem(override, base, known)
        if problem:
            found.append(problem)
        else:
            accepted.append(line_of(override))
    composed = _compose([*groups, *accepted])
    if isinstance(composed, DictConfig):
        return composed, found
    for line in list(accepted):
        alone = _compose([*groups, line])
        if isinstance(alone, Exception):
            accepted.remove(line)
            key, _, value = line.partition("=")
            found.append(Problem(key, value, "a value of the right kind", one_line(alone)))
    composed = _compose([*groups, *accepted])
    if isinstance(composed, Exception):  # valid one by one, but not together
        return None, [*found, Problem("command line", " ".join(accepted), "keys that agree", one_line(composed))]
    return composed, found


def _compose(lines: Sequence[str]) -> DictConfig | Exception:
    """Hydra's composition, or the error that it raised."""
    try:
        return compose("config", list(lines), return_hydra_config=True)
    except Exception as error:  # files of the user's: Hydra, OmegaConf and PyYAML have no common class
        return error


def _sets_section(override: Override, composed: DictConfig) -> bool:
    """Whether an override replaces a whole section by a value (`train=5`), which Hydra accepts silently."""
    key = override.key_or_group
    node = OmegaConf.select(composed, key, throw_on_resolution_failure=False)
    return key in _sections() or (isinstance(node, DictConfig) and not key.startswith(PROTOCOL_TABLES))


@cache
def _sections() -> frozenset[str]:
    """The keys of a run whose values are sections."""
    return frozenset(key for key, field in RunConfig.model_fields.items() if section_type(field.annotation))


def flat_keys(tree: DictConfig) -> list[str]:
    """Every dotted key of a configuration, sections included."""
    return [name for name, _, _ in keys_of(tree)]


def _choice_problem(override: Override, config_dirs: Sequence[str], added: Sequence[str] = ()) -> Problem | None:
    """The problem of a group choice, or None; groups that only the user's folders have (`added`) need `+group=NAME`."""
    group, choice = override.key_or_group, str(override.value())
    known = options(group, config_dirs)
    if override.is_sweep_override():
        value = line_of(override).split("=", 1)[-1]
        return Problem(group, value, "one choice", "For several runs: `sdsbench plan`, or Hydra's -m.")
    if choice in known and override.type == (OverrideType.ADD if group in added else OverrideType.CHANGE):
        return None
    more = f" and {len(known) - MANY} more (sdsbench ls {group})" if len(known) > MANY else ""
    own = f"{group} is a group of your own folder: +{group}={choice}." if group in added and choice in known else ""
    return Problem(group, choice, ", ".join(known[:MANY]) + more, own or nearest(choice, known))


def key_problem(override: Override, base: DictConfig, known: Sequence[str]) -> Problem | None:
    """The problem of an override's key, or None; `known` are the flat keys of `base`."""
    key = override.key_or_group
    if problem := refuse_kind(override, known):
        return problem
    if key in known:
        if isinstance(OmegaConf.select(base, key), DictConfig) and not key.startswith(PROTOCOL_TABLES):
            return Problem(key, override.value(), f"one key below it, such as {known[known.index(key) + 1]}")
        return None
    advice = _only_in_other_choices(key, base, known) or nearest(key, [*known, *GROUPS])
    return Problem(key, override.value(), "a key of conf/ (see `sdsbench show`)", advice)


def _only_in_other_choices(key: str, base: DictConfig, known: Sequence[str]) -> str:
    """For a key that other methods or tasks have (method.rank with method=full_ft): that this one lacks it."""
    group, _, name = key.partition(".")
    if group not in ("method", "task") or not any(name in keys for keys in _keys_of_choices(group)):
        return ""
    own = ", ".join(own for own in known if own.startswith(f"{group}.") and own != f"{group}.name")
    return f"{group}={OmegaConf.select(base, f'{group}.name')} has no {name}; its keys: {own}."


@cache
def _keys_of_choices(group: str) -> tuple[frozenset[str], ...]:
    """The top-level keys of each file of conf/GROUP."""
    files = sorted((conf_folder() / group).rglob("*.yaml"))
    return tuple(frozenset(map(str, OmegaConf.load(file))) for file in files)


def _from_omegaconf(error: Exception) -> Problem:
    key = getattr(error, "full_key", None) or "config"
    return Problem(str(key), "${...}", "a value that can be resolved", one_line(error))
