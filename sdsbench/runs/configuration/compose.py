"""Overrides -> composed configuration -> typed RunConfig, with every problem reported at once.

Hydra composes and stops at the first problem; users deserve all of them. So overrides are sorted first into those
that Hydra can take and those that it would refuse, the rest is composed, and each section validates itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdsbench.core import plugins
from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.package import bundled_folder
from sdsbench.core.spelling import nearest
from sdsbench.runs.configuration import resolvers
from sdsbench.runs.configuration.check import cross_problems
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.configuration.typed import typed_run

GROUPS = ("model", "method", "task", "tracker", "protocol")


MANY = 16  # choices that a message lists before it points to `sdsbench ls`


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


def compose_run(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> RunConfig:
    """The checked configuration of one run.

    Raises ConfigError with every problem found: unknown keys and choices, wrong types, impossible combinations.
    """
    composed, problems = compose_tree(overrides, config_dirs)
    if composed is None:
        raise ConfigError(problems)
    return to_run_config(composed, problems)


def to_run_config(composed: DictConfig, problems: Sequence[Problem] = ()) -> RunConfig:
    """A composed tree as a checked RunConfig; raises ConfigError (with `problems` found earlier in front)."""
    found = list(problems)
    resolvers.register()
    try:
        tree = OmegaConf.to_container(composed, resolve=True)
    except (OmegaConfBaseException, KeyError) as error:
        raise ConfigError([*found, _from_omegaconf(error)]) from None
    assert isinstance(tree, dict)
    return from_tree({str(key): value for key, value in tree.items()}, found)


def from_tree(tree: dict[str, Any], problems: Sequence[Problem] = ()) -> RunConfig:
    """A resolved tree (plain dicts) as a checked RunConfig; raises ConfigError."""
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
    """Hydra's composition of the overrides that it can take, and problems for those that it cannot."""
    resolvers.register()
    parsed, problems = _parse(overrides)
    modules = _plugins_of(parsed)
    plugins.load(modules)
    config_dirs = [*config_dirs, *map(str, plugins.conf_folders(modules))]
    groups = [override for override in parsed if override.key_or_group in GROUPS]
    group_overrides = _accepted(groups, lambda override: _choice_problem(override, config_dirs), problems)
    search = [f"hydra.searchpath=[{','.join(f'file://{Path(folder).resolve()}' for folder in config_dirs)}]"]
    base_overrides = [*(search if config_dirs else []), *group_overrides]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        try:
            base = compose("config", base_overrides)
        except (HydraException, OmegaConfBaseException) as error:
            return None, [
                *problems,
                Problem("config", " ".join(base_overrides), "files that compose", _one_line(error)),
            ]
        known = flat_keys(base)
        values = [override for override in parsed if override not in groups]
        accepted = _accepted(values, lambda override: key_problem(override, base, known), problems)
        for line in list(accepted):
            try:
                compose("config", [*base_overrides, line])
            except (HydraException, OmegaConfBaseException) as error:
                accepted.remove(line)
                problems.append(
                    Problem(line.split("=")[0], line.split("=", 1)[-1], "a value of the right kind", _one_line(error))
                )
        return (compose("config", [*base_overrides, *accepted]) if accepted else base), problems


def _plugins_of(parsed: Sequence[Override]) -> list[str]:
    """The modules that the overrides name as plugins; they bring choices and keys that the other overrides may use."""
    values = [override.value() for override in parsed if override.key_or_group == "plugins"]
    return [str(module) for module in values[-1]] if values and isinstance(values[-1], list) else []


def _accepted(
    overrides: Sequence[Override], problem_of: Callable[[Override], Problem | None], problems: list[Problem]
) -> list[str]:
    """The overrides without a problem, as written; the problems of the others are added to `problems`."""
    accepted = []
    for override in overrides:
        problem = problem_of(override)
        if problem:
            problems.append(problem)
        else:
            accepted.append(str(override.input_line))
    return accepted


def flat_keys(tree: DictConfig, prefix: str = "") -> list[str]:
    """Every dotted key of a configuration, sections included."""
    keys = []
    for key in tree:
        name = f"{prefix}{key!s}"
        keys.append(name)
        if (
            OmegaConf.is_dict(tree)
            and not OmegaConf.is_interpolation(tree, str(key))
            and isinstance(tree[key], DictConfig)
        ):
            keys += flat_keys(tree[key], f"{name}.")
    return keys


def _parse(lines: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    parser, parsed, problems = OverridesParser.create(), [], []
    for line in lines:
        try:
            parsed += parser.parse_overrides([line])
        except (HydraException, ValueError) as error:  # ValueError: a number of thousands of digits
            problems.append(Problem("command line", line[:100], "key=value", _one_line(error)))
    return parsed, problems


def _choice_problem(override: Override, config_dirs: Sequence[str]) -> Problem | None:
    group, choice = override.key_or_group, str(override.value())
    known = options(group, config_dirs)
    if override.is_sweep_override():
        line = str(override.input_line)
        return Problem(group, line.split("=", 1)[-1], "one choice", "For several runs: `sdsbench plan`, or Hydra's -m.")
    if choice in known and override.type.name == "CHANGE":
        return None
    more = f" and {len(known) - MANY} more (sdsbench ls {group})" if len(known) > MANY else ""
    return Problem(group, choice, ", ".join(known[:MANY]) + more, nearest(choice, known))


def key_problem(override: Override, base: DictConfig, known: Sequence[str]) -> Problem | None:
    """What is wrong with an override of `base` by key alone, or None; `known` are the flat keys of `base`."""
    key = override.key_or_group
    if override.type.name != "CHANGE":
        return Problem(key, override.input_line, "key=value for a key that exists", "Keys cannot be added or deleted.")
    if key in known:
        if isinstance(OmegaConf.select(base, key), DictConfig) and not key.startswith("protocol.paper"):
            return Problem(key, override.value(), f"one key below it, such as {known[known.index(key) + 1]}")
        return None
    return Problem(key, override.value(), "a key of conf/ (see `sdsbench show`)", nearest(key, [*known, *GROUPS]))


def _from_omegaconf(error: Exception) -> Problem:
    key = getattr(error, "full_key", None) or "config"
    return Problem(str(key), "${...}", "a value that can be resolved", _one_line(error))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def iter_leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of plain dicts; lists are leaves."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from iter_leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
