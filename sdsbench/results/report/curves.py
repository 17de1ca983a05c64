"""Scores over learning rates: a series for every method, variant and optimizer, from runs or from a tuned choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdsbench.core.record import Tuning
from sdsbench.results import setting
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.definitions.grid import variant_of, varying
from sdsbench.results.tables.names import method_order, method_title
from sdsbench.results.tables.runs import Run

RATE = "config.train.lr"


@dataclass(frozen=True)
class Curve:
    """Scores (points of 100) by learning rate, a number a seed; `chosen` is the rate that tuning took."""

    method: str
    title: str
    variant: int  # of its method, from 0
    scores: dict[float, list[float]]
    chosen: float | None
    validation: bool  # scored on rows held back from training


def curves(column: Column, runs: Sequence[Run]) -> list[Curve]:
    """The series of a column's runs that have two learning rates or more, method by method."""
    groups: dict[tuple[str, int | None], list[Run]] = {}
    for run in runs:
        if run.record.status == "done":
            groups.setdefault((run.record.method, run.record.rank), []).append(run)
    found: list[Curve] = []
    for (method, rank), members in sorted(groups.items(), key=lambda item: (method_order(item[0][0]), item[0][1] or 0)):
        keys = [key for key in varying(members, every=True) if key != RATE]
        variants: dict[str, list[Run]] = {}
        for run in members:
            variants.setdefault(variant_of(run, keys), []).append(run)
        for words, alike in sorted(variants.items()):
            title = ", ".join(filter(None, (method_title(method, rank), words)))
            curve = _curve(column, alike, title, sum(other.method == method for other in found))
            found += [curve] if len(curve.scores) > 1 else []
    return found


def _curve(column: Column, runs: Sequence[Run], title: str, number: int) -> Curve:
    choices = [run.record.tuning for run in runs if run.record.tuning and run.record.tuning.key == "train.lr"]
    tuning = [run for run in runs if setting.tuning_run(run.record)]
    stage = "validation" if tuning or choices else column.stage
    scores: dict[float, list[float]] = {}
    for run in runs:
        for score in run.record.scores:
            wanted = score.scorer == column.scorer if column.scorer else score.headline
            if wanted and score.evaluation == column.evaluation and score.stage == stage:
                scores.setdefault(run.record.lr, []).append(100 * score.value)
    if choices and not scores:
        scores = _recorded(choices[0])
    return Curve(
        runs[0].record.method, title, number, dict(sorted(scores.items())), choices[0].chosen if choices else None,
        stage == "validation",
    )  # fmt: skip


def _recorded(choice: Tuning) -> dict[float, list[float]]:
    """The means that a tuned run's record keeps, where the tuning runs themselves are not here."""
    pairs = zip(choice.grid, choice.scores, strict=True)
    return {rate: [100 * score] for rate, score in pairs if score is not None}
