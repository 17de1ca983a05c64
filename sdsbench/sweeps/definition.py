"""What a sweep is: a union of blocks, each a Cartesian product of Hydra overrides, and perhaps a tuned value.

name: rank_study
description: does the gap depend on the rank?
blocks:
  - fixed: [protocol=quick, task=gsm8k, model=micro]
    axes: {method: [lora, sds_lora], method.rank: [4, 8], seed: [0, 1, 2]}
tune:                          # optional
  key: train.lr                # each combination of the axes (seeds apart) gets its own value,
  grid: [5e-4, 1e-3, 2e-3]     # chosen among these: the same budget for every method,
  seeds: [100]                 # by runs with these seeds, scored on validation rows,
  evaluation_seeds_axis: seed  # then run with the values of this axis, scored on the test set
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.spelling import nearest
from sdsbench.core.texts import text
from sdsbench.runs.configuration.compose import GROUPS, conf_folder, options
from sdsbench.runs.configuration.identity import PLACING
from sdsbench.runs.configuration.typed import parse_section

Axes = dict[str, list[str]]  # key -> values, in Hydra's override syntax
_PLACING_KEYS = tuple(key for key in PLACING if key != "force")


@dataclass
class Tune:
    """A value that is chosen on validation rows, with the same budget for every method."""

    key: str
    grid: list[float]
    seeds: list[int]
    evaluation_seeds_axis: str = "seed"


@dataclass
class Block:
    """One Cartesian product; a fixed key is an axis of one value."""

    axes: Axes


@dataclass
class Sweep:
    """A sweep as defined, before anything is composed."""

    name: str
    description: str
    blocks: list[Block]
    tune: Tune | None = None
    placing: dict[str, str] = field(default_factory=dict)  # where and how its runs happen: output_root, threads ...


@dataclass
class _File:
    """The keys of a sweep file."""

    name: str
    description: str
    blocks: list[dict[str, Any]]
    tune: dict[str, Any] | None = None


def define(words: Sequence[str], config_dirs: Sequence[str] = ()) -> Sweep:
    """The sweep that a command line means: `sweep=NAME` and overrides; several values by commas make an axis.

    Overrides beside `sweep=NAME` are set in all its blocks. Raises ConfigError with every problem found.
    """
    problems: list[Problem] = []
    axes, named = _axes_of(words, problems, config_dirs), None
    if "sweep" in axes:
        named = axes.pop("sweep")[0]
    sweep = _read(named, config_dirs, problems) if named else Sweep("", "", [Block({})])
    placing = {key: values for key, values in axes.items() if _places(key)}
    for key, values in placing.items():
        axes.pop(key)
        if len(values) > 1:
            problems.append(Problem(key, ",".join(values), "one value", "It places runs and does not name them."))
        sweep.placing[key] = values[0]
    for block in sweep.blocks:
        block.axes |= axes
        problems += _block_problems(block, sweep.tune)
    if problems:
        raise ConfigError(problems)
    return sweep


def _read(name: str, config_dirs: Sequence[str], problems: list[Problem]) -> Sweep:
    empty = Sweep(name, "", [])
    known = options("sweep", config_dirs)
    if name not in known:
        problems.append(Problem("sweep", name, ", ".join(known) or "no sweep file found", nearest(name, known)))
        return empty
    paths = [Path(str(folder)) / "sweep" / f"{name}.yaml" for folder in (*config_dirs, conf_folder())]
    path = next(path for path in paths if path.is_file())
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(Problem(f"sweep={name}", path.name, "a YAML file", " ".join(str(error).split())[:300]))
        return empty
    if not isinstance(tree, dict):
        problems.append(Problem(f"sweep={name}", type(tree).__name__, "keys name, description, blocks, tune"))
        return empty
    file, found = parse_section(_File, {"tune": None, "description": "", "name": name, **tree}, f"sweep={name}")
    problems += found
    if file is None:
        return empty
    if not file.blocks:
        problems.append(Problem(f"sweep={name}.blocks", file.blocks, "one block or more, each with fixed and axes"))
    return Sweep(
        file.name,
        file.description,
        [_block(block, f"sweep={name}.blocks.{number}", problems) for number, block in enumerate(file.blocks)],
        _tune(file.tune, problems),
    )


def _block(tree: dict[str, Any], where: str, problems: list[Problem]) -> Block:
    for key in tree.keys() - {"fixed", "axes"}:
        problems.append(Problem(f"{where}.{key}", tree[key], "fixed, axes", nearest(str(key), ("fixed", "axes"))))
    fixed, axes = tree.get("fixed") or [], tree.get("axes") or {}
    if not isinstance(fixed, list) or not all(isinstance(line, str) for line in fixed):
        problems.append(Problem(f"{where}.fixed", fixed, "a list of overrides, each key=value"))
        fixed = []
    if not isinstance(axes, dict) or not all(isinstance(values, list) and values for values in axes.values()):
        problems.append(Problem(f"{where}.axes", axes, "key: [value, value, ...] for each axis"))
        axes = {}
    several = [line for line in fixed if len(next(iter(_axes_of([line], [], ()).values()), [])) > 1]
    for line in several:
        problems.append(Problem(f"{where}.fixed", line, "one value a key", "Several values belong under axes."))
    return Block(_axes_of(fixed, problems, ()) | {str(key): [text(v) for v in axes[key]] for key in axes})


def _tune(tree: dict[str, Any] | None, problems: list[Problem]) -> Tune | None:
    if tree is None:
        return None
    if isinstance(tree.get("grid"), list):  # YAML reads 5e-4 as a text
        tree["grid"] = [_number(value) for value in tree["grid"]]
    tune, found = parse_section(Tune, {"evaluation_seeds_axis": "seed", **tree}, "tune")
    problems += found
    if tune is None:
        return None
    if len(set(tune.grid)) < 2 or not all(map(math.isfinite, tune.grid)):
        problems.append(Problem("tune.grid", tune.grid, "two different numbers or more"))
    if not tune.seeds:
        problems.append(Problem("tune.seeds", tune.seeds, "one seed or more"))
    return tune


def _block_problems(block: Block, tune: Tune | None) -> list[Problem]:
    problems = [
        Problem(f"axes.{key}", ",".join(values), "a key that a run's numbers depend on", "Set it beside the sweep.")
        for key, values in block.axes.items()
        if _places(key) or key == "force"
    ]
    for key, values in block.axes.items():
        for value in {value for value in values if values.count(value) > 1}:
            problems.append(Problem(f"axes.{key}", value, "each value once"))
    if tune is None:
        return problems
    if tune.key in block.axes:
        problems.append(Problem(f"axes.{tune.key}", ",".join(block.axes[tune.key]), "no value", "tune chooses it."))
    if "eval.split" in block.axes:
        problems.append(Problem("axes.eval.split", ",".join(block.axes["eval.split"]), "no value", "tune sets it."))
    final = block.axes.get(tune.evaluation_seeds_axis)
    if final is None:
        problems.append(
            Problem("tune.evaluation_seeds_axis", tune.evaluation_seeds_axis, f"an axis: {', '.join(block.axes)}")
        )
    elif common := {str(seed) for seed in tune.seeds} & set(final):
        problems.append(
            Problem(
                "tune.seeds", ", ".join(sorted(common)), "seeds that no final run has", "Final seeds must be fresh."
            )
        )
    return problems


def _axes_of(words: Sequence[str], problems: list[Problem], config_dirs: Sequence[str]) -> Axes:
    """key -> values of overrides in Hydra's syntax: choices by commas, range(), glob() for groups."""
    axes: Axes = {}
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
            axes[override.key_or_group] = _values(override, config_dirs)
        except (HydraException, ValueError) as error:
            problems.append(
                Problem("override", word, "key=value or key=value,value", " ".join(str(error).split())[:300])
            )
            continue
        if override.type.name != "CHANGE":
            problems.append(Problem("override", word, "key=value", "Keys cannot be added or deleted."))
        if not axes[override.key_or_group]:
            problems.append(Problem(override.key_or_group, word.split("=", 1)[-1], "one value or more"))
            axes[override.key_or_group] = [""]
    return axes


def _values(override: Override, config_dirs: Sequence[str]) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(options(override.key_or_group, config_dirs) if override.key_or_group in GROUPS else [])
    if override.is_sweep_override():
        return [str(text) for text in override.sweep_string_iterator()]
    return [override.get_value_string()]


def _places(key: str) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in _PLACING_KEYS)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    except ValueError:
        return value
