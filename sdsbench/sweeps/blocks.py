"""The definition of a sweep: a union of blocks, each a Cartesian product of Hydra overrides, and perhaps a tuned key.

name: rank_study
description: does the gap depend on the rank?
blocks:
  - fixed: [protocol=quick, task=gsm8k, model=micro]
    axes: {method: [lora, sds_lora], method.rank: [4, 8], seed: [0, 1, 2]}
tune:                          # optional
  key: train.lr                # each combination of the axes (seeds apart) gets its own value,
  grid: [5e-4, 1e-3, 2e-3]     # chosen among these: the same budget for every method,
  seeds: [100, 101, 102]       # by runs with these seeds (these three if none are given), scored on validation rows,
  extend: 2                    # at each end up to two more while the best is the last one (none if not given),
  evaluation_seeds_axis: seed  # then run with the values of this axis, scored on the test set
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from pydantic import Field, field_validator

from sdsbench.core.allowed_names import NAME_WORDS, Name
from sdsbench.core.errors import ConfigError, DamagedFile, Problem
from sdsbench.core.limits import MANIFEST
from sdsbench.core.section import Accepts, Section
from sdsbench.core.spelling import nearest
from sdsbench.core.texts import text
from sdsbench.core.yaml_text import file_problem, read_yaml
from sdsbench.runs.configuration import overrides
from sdsbench.runs.configuration.choices import GROUPS, conf_folder, options, own_groups
from sdsbench.runs.configuration.identity import PLACING
from sdsbench.runs.configuration.typed import parse_section

Axes = dict[str, list[str]]  # key -> values, in Hydra's override syntax
TUNING_SEEDS = (100, 101, 102)
"""Default seeds of tuning runs. One seed is too few: it once chose LoRA's rate by 5 against 3 of 100 questions."""
_PLACING_KEYS = tuple(key for key in PLACING if key != "force")


class Tune(Section):
    """A key whose value is tuned on validation rows, with the same budget for every method."""

    key: str = Field(description="the key whose value is chosen")
    grid: Annotated[list[float], Accepts("two different numbers or more")] = Field(
        min_length=2, description="the values to choose from"
    )
    seeds: list[int] = Field(
        list(TUNING_SEEDS), min_length=1, description="seeds of the tuning runs, none of them a final run's"
    )
    evaluation_seeds_axis: str = Field("seed", description="the axis whose values are the final runs' seeds")
    extend: int = Field(
        0, ge=0, description="further values at each end, tried while the best value is the last one there"
    )

    @field_validator("grid", mode="before")
    @classmethod
    def _numbers(cls, grid: Any) -> Any:
        """Convert strings to numbers, since YAML reads 5e-4 as a string."""
        return [_number(value) for value in grid] if isinstance(grid, list) else grid

    def problems(self) -> Iterator[Problem]:
        if len(set(self.grid)) < len(self.grid):
            yield Problem("tune.grid", self.grid, "two different numbers or more")
        if self.extend and min(self.grid) <= 0:
            yield Problem("tune.grid", self.grid, "values above 0", "tune.extend multiplies them by a factor.")


@dataclass
class Sweep:
    """A sweep's definition, before its configurations are composed."""

    name: str
    description: str
    blocks: list[Axes]  # each is a Cartesian product; a fixed key is an axis with one value
    tune: Tune | None = None
    placing: dict[str, str] = field(default_factory=dict)  # placing keys of all runs: output_root, threads ...


Values = Annotated[list[Any], Field(min_length=1)]


class _BlockOfFile(Section):
    """File format of one block in a sweep file."""

    fixed: Annotated[list[str], Accepts("a list of overrides, each key=value")] = Field([])
    axes: Annotated[dict[str, Values], Accepts("key: [value, value, ...] for each axis")] = Field({})


class _File(Section):
    """File format of a sweep file."""

    name: Annotated[Name, Accepts(NAME_WORDS)]
    description: str = ""
    blocks: Annotated[list[_BlockOfFile], Accepts("one block or more, each with fixed and axes")] = Field(min_length=1)
    tune: Tune | None = None


def define(words: Sequence[str], config_dirs: Sequence[str] = ()) -> Sweep:
    """Parse a command line to a sweep: `sweep=NAME` and overrides, of which comma-separated values form an axis.

    Overrides in addition to `sweep=NAME` apply to all its blocks. Raises ConfigError with every problem found.
    """
    problems: list[Problem] = []
    axes, named = _axes_of(words, problems, config_dirs), None
    if "sweep" in axes:
        named, *others = axes.pop("sweep")
        if others:
            advice = "Each sweep makes a plan of its own."
            problems.append(Problem("sweep", ",".join([named, *others]), "one name", advice))
    sweep = _read(named, config_dirs, problems) if named else Sweep("", "", [{}])
    placing = {key: values for key, values in axes.items() if _places(key)}
    for key, values in placing.items():
        axes.pop(key)
        if len(values) > 1:
            problems.append(Problem(key, ",".join(values), "one value", "It places runs and does not name them."))
        sweep.placing[key] = values[0]
    for block in sweep.blocks:
        block.update(axes)
        problems += _block_problems(block, sweep.tune)
        if (runs := math.prod(map(len, block.values()))) > overrides.MOST:
            problems.append(Problem("axes", f"{runs:,} runs", f"at most {overrides.MOST:,} runs of one sweep"))
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
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        problems.append(Problem(f"sweep={name}", f"{name}.yaml", "a regular file"))
        return empty
    if accepted := file_problem(path):
        problems.append(Problem(f"sweep={name}", path.name, accepted))
        return empty
    try:
        tree = read_yaml(path.resolve(), MANIFEST)
    except DamagedFile as error:
        problems.append(Problem(f"sweep={name}", path.name, "a YAML file", str(error)))
        return empty
    if not isinstance(tree, dict):
        problems.append(Problem(f"sweep={name}", type(tree).__name__, "keys name, description, blocks, tune"))
        return empty
    file, found = parse_section(_File, {"name": name, **tree}, f"sweep={name}")
    problems += found
    if file is None:
        return empty
    problems += file.tune.problems() if file.tune else ()
    blocks = [_block(block, f"sweep={name}.blocks.{number}", problems) for number, block in enumerate(file.blocks)]
    return Sweep(file.name, file.description, blocks, file.tune)


def _block(block: _BlockOfFile, where: str, problems: list[Problem]) -> Axes:
    for line in block.fixed:
        if len(next(iter(_axes_of([line], [], ()).values()), [])) > 1:
            problems.append(Problem(f"{where}.fixed", line, "one value a key", "Several values belong under axes."))
    axes: Axes = {}
    for key, values in block.axes.items():  # a value may expand to several: range(0,3)
        found = [_axes_of([f"{key}={text(value)}"], problems, ()) for value in values]
        axes[key] = [value for axis in found for value in next(iter(axis.values()), [])]
    return _axes_of(block.fixed, problems, ()) | axes


def _block_problems(block: Axes, tune: Tune | None) -> list[Problem]:
    problems = [
        Problem(f"axes.{key}", ",".join(values), "a key that a run's numbers depend on", "Set it beside the sweep.")
        for key, values in block.items()
        if _places(key) or key == "force"
    ]
    for key, values in block.items():
        for value in {value for value in values if values.count(value) > 1}:
            problems.append(Problem(f"axes.{key}", value, "each value once"))
    if tune is None:
        return problems
    if tune.key in block:
        problems.append(Problem(f"axes.{tune.key}", ",".join(block[tune.key]), "no value", "tune chooses it."))
    if "eval.split" in block:
        problems.append(Problem("axes.eval.split", ",".join(block["eval.split"]), "no value", "tune sets it."))
    final = block.get(tune.evaluation_seeds_axis)
    if final is None:
        problems.append(
            Problem("tune.evaluation_seeds_axis", tune.evaluation_seeds_axis, f"an axis: {', '.join(block)}")
        )
    elif common := {str(seed) for seed in tune.seeds} & set(final):
        problems.append(
            Problem(
                "tune.seeds", ", ".join(sorted(common)), "seeds that no final run has", "Final seeds must be fresh."
            )
        )
    return problems


def _axes_of(words: Sequence[str], problems: list[Problem], config_dirs: Sequence[str]) -> Axes:
    """key -> values of overrides in Hydra's sweep syntax: commas, range(), and glob() for groups."""
    axes: Axes = {}
    parsed, refused = overrides.parse(words, "key=value or key=value,value")
    problems += refused
    added = tuple(own_groups(config_dirs))
    for override in parsed:
        key = override.key_or_group
        if key in added and override.is_add():
            key = f"+{key}"
        try:
            axes[key] = _values(override, config_dirs)
        except (HydraException, ValueError) as error:  # such as range(0,1,0)
            problems.append(
                Problem(key, override.get_value_string(), "key=value or key=value,value", overrides.one_line(error))
            )
            continue
        if not key.startswith("+") and (problem := overrides.refuse_kind(override, GROUPS)):
            problems.append(problem)
        if not axes[key]:
            problems.append(Problem(key, override.get_value_string(), "one value or more"))
            axes[key] = [""]
    return axes


def _values(override: Override, config_dirs: Sequence[str]) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        group = override.key_or_group
        return value.filter(options(group, config_dirs) if group in (*GROUPS, *own_groups(config_dirs)) else [])
    return overrides.values_of(override)


def _places(key: str) -> bool:
    return key in _PLACING_KEYS


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str | int) and not isinstance(value, bool) else value
    except ValueError:
        return value
