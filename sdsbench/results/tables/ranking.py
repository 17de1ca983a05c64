"""Best and second of each column; the best is marked only where a paired test tells it from the second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.samples import correct
from sdsbench.results.frames import samples_of
from sdsbench.results.statistics import Comparison, hierarchical_bootstrap, holm, mcnemar, seed_test
from sdsbench.results.tables.cells import SCALE, Cell
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.measures import score_of
from sdsbench.results.tables.runs import Run

ALPHA = 0.05


def mark(columns: Sequence[Column], cells: dict[tuple[str, str], Cell]) -> dict[tuple[str, str], Cell]:
    """The cells with marks: `second` for the runner-up, `best` where Holm-adjusted p (over the table) is below 0.05."""
    marked = dict(cells)
    contests: list[tuple[Cell, Cell, Comparison]] = []
    for column in columns:
        ranked = _ranked(column, [cell for cell in cells.values() if cell.column == column.name])
        if len(ranked) < 2:
            continue
        best, second = ranked[0], ranked[1]
        if best.ours and second.ours and best.ours.mean == second.ours.mean:
            continue
        marked[second.row, second.column] = replace(second, mark="second")
        comparison = compare(column, best, second)
        if comparison is not None:
            contests.append((best, second, comparison))
    adjusted = holm([comparison.p_value for _, _, comparison in contests])
    for (best, _, comparison), p_value in zip(contests, adjusted, strict=True):
        known = None if math.isnan(p_value) else p_value
        allowed = known is not None and known < ALPHA
        marked[best.row, best.column] = replace(
            best, mark="best" if allowed else "", p_value=known, test=comparison.test
        )
    return marked


def compare(column: Column, ours: Cell, theirs: Cell, confidence: float = 0.95) -> Comparison | None:
    """The strongest paired test that the records allow, with its interval; None: no seed in common.

    Answers of the same questions at two common seeds or more: hierarchical bootstrap. At one seed: McNemar.
    No stored answers (or a score that is no mean of answers): paired t over seeds.
    """
    seeds = sorted(set(ours.by_seed) & set(theirs.by_seed))
    if not seeds:
        return None
    ours_sq, theirs_sq = _answers(column, ours.runs, seeds), _answers(column, theirs.runs, seeds)
    if ours_sq is not None and theirs_sq is not None and ours_sq.shape == theirs_sq.shape:
        if min(ours_sq.shape) > 1:
            return _in_points(hierarchical_bootstrap(ours_sq, theirs_sq, confidence=confidence))
        if np.isin([ours_sq, theirs_sq], (0, 1)).all():
            return _in_points(mcnemar(ours_sq[0], theirs_sq[0]))
    return seed_test(ours.by_seed, theirs.by_seed, confidence)


def _in_points(comparison: Comparison) -> Comparison:
    """Answers are 0 to 1, cells are points of 100."""
    scale = SCALE["score"]
    return replace(
        comparison,
        difference=scale * comparison.difference,
        low=scale * comparison.low,
        high=scale * comparison.high,
    )


def _ranked(column: Column, cells: Sequence[Cell]) -> list[Cell]:
    if not column.better:
        return []
    sign = -1.0 if column.better == "higher" else 1.0
    valued = [cell for cell in cells if cell.status == "value" and cell.ours is not None]
    return sorted(valued, key=lambda cell: sign * cell.ours.mean if cell.ours else 0.0)


def _answers(column: Column, runs: Sequence[Run], seeds: Sequence[int]) -> np.ndarray | None:
    """Seeds x questions, or None where a run keeps no answers under the column's scorer."""
    if column.measure != "score" or column.parts:
        return None
    table = []
    by_seed = {run.record.seed: run for run in runs}
    for seed in seeds:
        run = by_seed[seed]
        score = score_of(run, column)
        try:
            samples = samples_of(run.folder, column.evaluation, column.stage)
        except (Unavailable, DamagedFile):
            return None
        if score is None or any(score.scorer not in sample.get("scores", {}) for sample in samples):
            return None
        table.append([correct(sample, score.scorer) for sample in samples])
        if abs(float(np.mean(table[-1])) - score.value) > 1e-6:  # not the mean of its answers
            return None
    return np.array(table) if len({len(row) for row in table}) == 1 else None
