"""A sweep's definition -> the manifest and configurations of a plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from sdsbench.core.errors import ConfigError, Problem, Unavailable
from sdsbench.core.hashing import canonical_json, sha256_of
from sdsbench.runs import origin
from sdsbench.runs.configuration.identity import named, placing_of, run_id
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import require_data, resolve_source
from sdsbench.sweeps.blocks import Sweep, Tune
from sdsbench.sweeps.expand import Composer, Point, product
from sdsbench.sweeps.plan import Manifest, PlannedRun, TunedCell


def freeze(
    sweep: Sweep, config_dirs: Sequence[str] = (), log: Callable[[str], None] = print
) -> tuple[Manifest, dict[str, str]]:
    """(manifest, frozen configuration by run id); logs the chosen data sources with their reasons.

    data.source=auto is resolved here, since it is part of a run's id and a plan must not depend on where it runs.
    Raises ConfigError with every problem of every run, then Unavailable with every data set that is not available.
    """
    freezer = _Freezer(Composer(sweep.placing, config_dirs))
    for block in sweep.blocks:
        if sweep.tune is None:
            for point in product(block):
                for single in freezer.composer.points(point):
                    freezer.add("run", single)
        else:
            axes = dict(block)
            seeds = axes.pop(sweep.tune.evaluation_seeds_axis)
            for point in product(axes):
                for single in freezer.composer.points(point, seeded=True):
                    freezer.add_cell(sweep.tune, single, seeds)
    freezer.composer.raise_problems()
    if freezer.unavailable:
        raise Unavailable("\n".join(freezer.unavailable))
    for line in freezer.sources:
        log(line)
    if not freezer.runs:
        raise ConfigError([Problem("blocks", 0, "at least one run")])
    manifest = Manifest(
        name=sweep.name or _name(freezer.runs),
        description=sweep.description,
        git_commit=origin.commit(),
        placing=freezer.placing | freezer.composer.unresolved,
        runs=freezer.runs,
        cells=freezer.cells,
    )
    return manifest, freezer.texts


class _Freezer:
    """Collects the runs and tuned cells of a plan."""

    def __init__(self, composer: Composer) -> None:
        self.composer = composer
        self.runs: dict[str, PlannedRun] = {}
        self.cells: dict[str, TunedCell] = {}
        self.texts: dict[str, str] = {}
        self.placing: dict[str, object] = {}
        self.sources: dict[str, None] = {}  # data sources with their reasons, without repetitions
        self.unavailable: dict[str, None] = {}

    def add(self, role: str, point: Point) -> str:
        """Freeze the run of a point and return its id; empty if the point has a problem (see raise_problems)."""
        config = self.composer.configuration(point)
        if config is None:
            return ""
        try:
            config, reason = resolve_source(config)
            require_data(config)
            self._place(config)
        except Unavailable as error:
            self.unavailable |= dict.fromkeys(str(error).splitlines())  # report each data set once
            return ""
        except ConfigError as error:
            self.composer.collect(error)
            return ""
        self.sources[f"data.source={config.data.source}: {reason}"] = None
        identity = run_id(config)
        known = self.runs.get(identity)
        if known is None:
            text = canonical_json(named(config))
            digest = hashlib.sha256(text.encode()).hexdigest()
            self.runs[identity] = PlannedRun(role=role, point=point, sha256=digest)  # type: ignore[arg-type]
            self.texts[identity] = text
        elif known.role == "final":
            known.role = role  # type: ignore[assignment]
        return identity

    def _place(self, config: RunConfig) -> None:
        """Take the plan's placing from its first run. Raises ConfigError if a later run's placing differs."""
        placing = placing_of(config)
        self.placing = self.placing or placing
        problems = [
            Problem(key, value, f"one value for all runs: {self.placing[key]}", f"Set {key}=VALUE beside the sweep.")
            for key, value in placing.items()
            if value != self.placing[key]
        ]
        if problems:
            raise ConfigError(problems)

    def add_cell(self, tune: Tune, point: Point, seeds: Sequence[str]) -> None:
        """Freeze the tuning runs of one combination, and the final runs of every value that tuning may choose."""
        seed_key, grid = tune.evaluation_seeds_axis, extended(tune.grid, tune.extend)

        def run(role: str, value: float, seed: str, split: str) -> str:
            return self.add(role, point | {tune.key: repr(value), seed_key: seed, "eval.split": split})

        tuning = [[run("tuning", value, str(seed), "validation") for seed in tune.seeds] for value in grid]
        final = {seed: [run("final", value, seed, "test") for value in grid] for seed in seeds}
        if not all(identity for row in (*tuning, *final.values()) for identity in row):
            return  # a run has a problem, which `freeze` raises later
        key = sha256_of([point, tune.model_dump()])[:12]
        if key in self.cells:  # two blocks may hold the same setting with different seeds
            final = self.cells[key].final | final
        self.cells[key] = TunedCell(
            point=point, key=tune.key, grid=grid, seeds=tune.seeds, tuning=tuning, final=final, extend=tune.extend
        )


def extended(grid: Sequence[float], count: int) -> list[float]:
    """Extend a grid by `count` values at each end, continuing the ratio of its last two values there.

    The new values are rounded to three significant digits. With `count` 0 the grid is returned unchanged.
    """
    if not count:
        return list(grid)
    ascending = sorted(grid)
    below, above = ascending[0] / ascending[1], ascending[-1] / ascending[-2]
    lower = [float(f"{ascending[0] * below**step:.3g}") for step in range(count, 0, -1)]
    upper = [float(f"{ascending[-1] * above**step:.3g}") for step in range(1, count + 1)]
    return [*lower, *ascending, *upper]


def _name(runs: dict[str, PlannedRun]) -> str:
    return hashlib.sha256("".join(sorted(runs)).encode()).hexdigest()[:12]
