"""Score by learning rate: one series per method, variant and optimizer, from runs or from recorded tuning results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdsbench.core.grouped import grouped
from sdsbench.core.record import Tuning
from sdsbench.results import setting
from sdsbench.results.tables.cells import SCALE
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.grid import by_method, by_variant, varying
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.run_values import shows
from sdsbench.results.tables.titles import method_order, method_title

RATE = "config.train.lr"


@dataclass(frozen=True)
class Curve:
    """One series: learning rate -> scores in the column's units, one per seed. `tuning`: how the rate was chosen."""

    method: str
    title: str
    variant: int  # index among the method's series, from 0
    scores: dict[float, list[float]]
    tuning: Tuning | None
    validation: bool  # scored on validation rows held out from training


def curves(column: Column, runs: Sequence[Run]) -> list[Curve]:
    """The series of a column's runs with at least two learning rates, ordered by method."""
    groups = grouped((run for run in runs if run.record.status == "done"), by_method)
    found: list[Curve] = []
    for (method, rank), members in sorted(groups.items(), key=lambda item: (method_order(item[0][0]), item[0][1] or 0)):
        keys = [key for key in varying(members, every=True) if key != RATE]
        for words, alike in sorted(by_variant(members, keys).items()):
            curve = _curve(
                column, alike, method_title(method, rank, words), sum(other.method == method for other in found)
            )
            found += [curve] if len(curve.scores) > 1 else []
    return found


def _curve(column: Column, runs: Sequence[Run], title: str, number: int) -> Curve:
    choices = [run.record.tuning for run in runs if run.record.tuning and run.record.tuning.key == "train.lr"]
    tuning = [run for run in runs if setting.tuning_run(run.record)]
    stage = "validation" if tuning or choices else column.stage
    scale = SCALE.get(column.format, 1.0)
    scores: dict[float, list[float]] = {}
    for run in runs:
        for score in run.record.scores:
            if shows(column, score, stage):
                scores.setdefault(run.record.lr, []).append(scale * score.value)
    if choices and not scores:
        scores = _recorded(choices[0], scale)
    choice = choices[0] if choices else None
    return Curve(runs[0].record.method, title, number, dict(sorted(scores.items())), choice, stage == "validation")


def _recorded(choice: Tuning, scale: float) -> dict[float, list[float]]:
    """The mean score per rate from a tuned run's record, used if the tuning runs themselves are not available."""
    pairs = zip(choice.grid, choice.scores, strict=True)
    return {rate: [scale * score] for rate, score in pairs if score is not None}
