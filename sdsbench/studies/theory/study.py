"""The theory study: problem x condition number x method x optimizer, tuned learning rate per cell, many seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sdsbench.core.errors import Problem
from sdsbench.core.grouped import grouped
from sdsbench.methods.base import METHODS, LowRankConfig, MethodConfig, lookup
from sdsbench.results.statistics.intervals import Interval, t_interval
from sdsbench.studies.theory.descent import Curves, descend
from sdsbench.studies.theory.problems import Setting, make
from sdsbench.studies.theory.rates import asymptotic_rate, clipped, exponent, score
from sdsbench.training.training_config import OPTIMIZERS, OptimizerName, TrainConfig

SCHEDULES: dict[OptimizerName, Literal["constant", "cosine"]] = {
    "sgd": "constant",
    "momentum": "constant",
    "adamw": "cosine",
}
"""Constant learning rates show the convergence rate; Adam's steps do not shrink by themselves, so its rate decays."""
TUNING_SEED = 1_000_000  # tuning uses other problems than the measurement


@dataclass(frozen=True)
class Grid:
    """The grid to run. The defaults take seconds; `FULL` is the study in docs/mechanism.md."""

    kinds: tuple[str, ...] = ("factorisation",)
    methods: tuple[str, ...] = ("full_ft", "lora", "preconditioned_lora", "sds_lora")
    optimizers: tuple[OptimizerName, ...] = ("sgd", "adamw")
    conditions: tuple[float, ...] = (1.0, 100.0, 10000.0)
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    seeds: int = 10
    tuning_seeds: int = 3
    steps: int = 200
    beta1: float = 0.9  # of AdamW; 0: no momentum
    refresh: str = "author"  # SDS-LoRA's rule
    setting: Setting = field(default_factory=Setting)

    def problems(self) -> Iterator[Problem]:
        for kind in self.kinds:
            yield from Setting(kind=kind, m=self.setting.m, n=self.setting.n, rank=self.setting.rank).problems()
        for condition in self.conditions:
            yield from Setting(condition=condition, noise=self.setting.noise).problems()
        for name in self.methods:
            if not (name in METHODS.names() and _describes_a_layer(name)):
                yield Problem("method", name, ", ".join(filter(_describes_a_layer, METHODS.names())))
        for optimizer in self.optimizers:
            if optimizer not in OPTIMIZERS:
                yield Problem("optimizer", optimizer, ", ".join(OPTIMIZERS))
        for rate in self.learning_rates:
            if not rate > 0:
                yield Problem("rates", rate, "numbers above 0")
        if not 0 <= self.beta1 < 1:
            yield Problem("beta1", self.beta1, "from 0, below 1")
        for key in ("seeds", "tuning_seeds", "steps"):
            if getattr(self, key) < 1:
                yield Problem(key, getattr(self, key), "a whole number from 1")


FULL = Grid(
    kinds=("factorisation", "regression"),
    methods=(
        "full_ft",
        "lora",
        "rslora",
        "pissa",
        "lora_pro",
        "preconditioned_lora",
        "lora_xs",
        "lora_sb",
        "sds_lora",
    ),
    optimizers=("sgd", "momentum", "adamw"),
    conditions=(1.0, 10.0, 100.0, 1000.0, 10000.0),
    learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    tuning_seeds=3,
    steps=300,
)


@dataclass(frozen=True)
class TheoryCell:
    """Results of one method, optimizer and condition number over seeds."""

    kind: str
    method: str
    optimizer: OptimizerName
    condition: float
    lr: float
    lr_at_edge: bool  # the tuned rate is at an end of the grid; a wider grid might contain a better one
    rates: tuple[float, ...]  # nats per step, one per seed; NaN if diverged
    final: tuple[float, ...]  # log10 of the last excess loss relative to the first, per seed
    median_curve: tuple[float, ...]  # log10 relative excess before each step, median over seeds

    @property
    def rate(self) -> Interval:
        """Mean rate in nats per step with its 95 % t-interval over seeds that did not diverge."""
        return _interval(self.rates)

    @property
    def final_log10(self) -> Interval:
        """Mean log10 of the final relative excess loss with its 95 % t-interval over seeds."""
        return _interval(self.final)

    @property
    def diverged(self) -> int:
        """Number of seeds whose descent diverged."""
        return int(np.isnan(self.rates).sum())


def run(grid: Grid, progress: Callable[[str], None] = lambda line: None) -> list[TheoryCell]:
    """Run all cells of the grid; `progress` receives one line per group of cells."""
    cells = []
    for kind in grid.kinds:
        for optimizer in grid.optimizers:
            for name in grid.methods:
                progress(f"{kind}, {optimizer}, {name}")
                cells += _cells(grid, kind, optimizer, name)
    return cells


def exponents(cells: list[TheoryCell]) -> dict[tuple[str, str, str], Interval]:
    """p in rate ~ condition^-p, per (kind, method, optimizer)."""
    groups = grouped(cells, lambda cell: (cell.kind, cell.method, cell.optimizer))
    found: dict[tuple[str, str, str], Interval] = {}
    for key, group in groups.items():
        whole = np.isfinite([cell.rates for cell in group]).all(axis=0)
        if len(group) > 1 and whole.any():
            found[key] = exponent([cell.condition for cell in group], [cell.rates for cell in group])
    return found


def method_config(name: str, rank: int, refresh: str = "author") -> MethodConfig:
    """A method's configuration in this study: exact decompositions, a scale of 1 (sqrt(r) for alpha / sqrt(r)).

    Each setting applies to the methods whose configuration has that key; with `eta` there, alpha is the scale itself.
    """
    config = lookup(name)[1]
    alpha = 1.0 if "eta" in config.model_fields else float(rank)
    settings: dict[str, Any] = {"rank": rank, "alpha": alpha, "svd": "exact", "eta": "paper", "refresh": refresh}
    return config(name=name, **{key: value for key, value in settings.items() if key in config.model_fields})


def _describes_a_layer(name: str) -> bool:
    """Whether a method can be studied on a single layer: it adapts layers of this package, or trains the weight."""
    method, config = lookup(name)
    return issubclass(config, LowRankConfig) or method.trains_base


def _cells(grid: Grid, kind: str, optimizer: OptimizerName, name: str) -> list[TheoryCell]:
    """The cells of all condition numbers; one descent per learning rate optimises all problems together."""
    tuning = _problems(grid, kind, [TUNING_SEED + index for index in range(grid.tuning_seeds)])
    scores = []  # learning rate x condition
    for lr in grid.learning_rates:
        curves = _descend(grid, name, optimizer, lr, tuning)
        each = [score(excess, floor) for excess, floor in zip(curves.excess_Tp.T, curves.floor_p, strict=True)]
        scores.append(
            np.reshape(each, (len(grid.conditions), -1)).max(axis=1)
        )  # worst seed: a rate must work for all seeds
    best = np.argmin(scores, axis=0)
    measured = _problems(grid, kind, range(grid.seeds))
    cells: dict[int, TheoryCell] = {}
    for choice in sorted(set(best.tolist())):
        chosen = np.flatnonzero(best == choice)
        problems = [measured[c * grid.seeds + seed] for c in chosen for seed in range(grid.seeds)]
        lr = grid.learning_rates[choice]
        curves = _descend(grid, name, optimizer, lr, problems)
        for position, condition in enumerate(chosen):
            columns = range(position * grid.seeds, (position + 1) * grid.seeds)
            edge = choice in (0, len(grid.learning_rates) - 1)
            key = (kind, name, optimizer, grid.conditions[condition], lr, edge)
            cells[int(condition)] = _cell(key, curves, columns)
    return [cells[index] for index in sorted(cells)]


def _cell(key: tuple[str, str, OptimizerName, float, float, bool], curves: Curves, columns: range) -> TheoryCell:
    pairs = [(curves.excess_Tp[:, column], float(curves.floor_p[column])) for column in columns]
    with np.errstate(invalid="ignore"):
        relative = np.log10([clipped(excess, floor) for excess, floor in pairs])
    rates = tuple(asymptotic_rate(excess, floor) for excess, floor in pairs)
    return TheoryCell(*key, rates, tuple(relative[:, -1].tolist()), tuple(np.median(relative, axis=0).tolist()))


def _problems(grid: Grid, kind: str, seeds: Any) -> list[Any]:
    s = grid.setting
    return [
        make(Setting(kind, s.m, s.n, s.rank, condition, s.size, s.noise), seed)
        for condition in grid.conditions
        for seed in seeds
    ]


def _descend(grid: Grid, name: str, optimizer: OptimizerName, lr: float, problems: list[Any]) -> Curves:
    schedule, betas = SCHEDULES[optimizer], [grid.beta1, 0.999]
    train = TrainConfig(lr=lr, optimizer=optimizer, max_steps=grid.steps, schedule=schedule, betas=betas)
    return descend(problems, method_config(name, grid.setting.rank, grid.refresh), train)


def _interval(values: tuple[float, ...]) -> Interval:
    finite = [value for value in values if np.isfinite(value)]
    return t_interval(finite) if finite else Interval(float("nan"), float("nan"), float("nan"), 0)
