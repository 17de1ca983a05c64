"""The difference between two cells of a column: selection of the test, its seeds and its questions.

A test uses the same runs and questions as the difference that is shown. It is selected by a rule that does not depend
on the scores:

* Classifiers of sentences and images get a new head that is initialised from the seed: all methods start from the same
head, and a good one helps all of them. Seeds are paired (seed effects of methods correlate .92 on RTE, .73 on MRPC).
* A language model starts from the same weights for every seed, which only shuffles the data. Seeds are not paired
(correlation 0.00 on embedded GSM8K, where pairing would halve the degrees of freedom).
* If a score is the mean of stored answers to the same questions, questions are a random sample too: crossed variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sdsbench.results.statistics import contrasts
from sdsbench.results.statistics.contrasts import Comparison
from sdsbench.results.statistics.variances import Variances
from sdsbench.results.stored_answers import answers_of
from sdsbench.results.tables.cells import SCALE, TableCell
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.run_values import score_of

MIN_SEEDS = 3
"""Seeds needed per side. With two, 6 to 13 % of equal methods differ at a level of 5 %; with one, the spread between
seeds is unknown (of one method, 45 of 220 pairs of seeds differed significantly if only questions were counted)."""
NO_VARIANCE = "no variance between seeds"
PAIRED_RULE = "paired over seeds where the seed sets a new classifier head, else unpaired"


@dataclass(frozen=True)
class Contrast:
    """A comparison of two cells; `untested` says why there is no test (p and interval are then NaN)."""

    comparison: Comparison
    untested: str = ""
    paired: bool = False  # the difference is over the seeds that both sides have


def paired_over_seeds(runs: Sequence[Run]) -> bool:
    """Whether methods are paired by seed: true if the seed initialises a head that all methods start from."""
    return any(run.flat.get("config.model.family", "decoder") != "decoder" for run in runs)


def contrast(
    column: Column,
    ours: TableCell,
    theirs: TableCell,
    confidence: float = 0.95,
    pooled: tuple[float, float] | None = None,
) -> Contrast:
    """Test the difference ours - theirs, in the column's units, over the runs of the two cells.

    `pooled`: variance between seeds pooled over the column's methods, and its degrees of freedom (unpaired seeds only).
    Raises ValueError for a cell without a value.
    """
    if ours.ours is None or theirs.ours is None:
        raise ValueError(f"{ours.row} or {theirs.row} has no value in {column.name}")
    shown = ours.ours.mean - theirs.ours.mean
    paired = paired_over_seeds((*ours.runs, *theirs.runs))
    seeds = _seeds(ours, theirs, paired)
    nothing = Comparison("none", shown, float("nan"), float("nan"), float("nan"), min(map(len, seeds)), 0)
    if min(map(len, seeds)) < MIN_SEEDS:
        return Contrast(nothing, f"fewer than {MIN_SEEDS} {'common ' if paired else ''}seeds")
    tables = [_answers(column, cell, chosen) for cell, chosen in zip((ours, theirs), seeds, strict=True)]
    comparison = _test(column, ours, theirs, tables, paired, confidence, pooled)
    if comparison.difference * shown < 0:
        return Contrast(nothing, "the common seeds differ the other way than all seeds")
    if comparison.variances is None or not comparison.variances.testable:
        return Contrast(comparison, NO_VARIANCE, paired)
    return Contrast(comparison, paired=paired)


def pooled_over(cells: Sequence[TableCell]) -> tuple[float, float] | None:
    """(variance between seeds pooled over a column's methods in its units squared, degrees of freedom)."""
    return contrasts.pooled_variance([list(cell.by_seed.values()) for cell in cells])


def _seeds(ours: TableCell, theirs: TableCell, paired: bool) -> tuple[list[int], list[int]]:
    if paired:
        common = sorted(set(ours.by_seed) & set(theirs.by_seed))
        return common, common
    return sorted(ours.by_seed), sorted(theirs.by_seed)


def _test(
    column: Column,
    ours: TableCell,
    theirs: TableCell,
    tables: Sequence[tuple[str, np.ndarray] | None],
    paired: bool,
    confidence: float,
    pooled: tuple[float, float] | None,
) -> Comparison:
    first, second = tables
    if first is not None and second is not None and first[0] == second[0] and first[1].shape[1] > 1:
        scale = SCALE.get(column.format, 1.0)
        if paired:
            return _scaled(contrasts.paired_crossed(first[1], second[1], confidence), scale)
        shared = None if pooled is None else (pooled[0] / scale**2, pooled[1])
        return _scaled(contrasts.unpaired_crossed(first[1], second[1], confidence, shared), scale)
    if paired:
        return contrasts.paired_seeds(ours.by_seed, theirs.by_seed, confidence)
    return contrasts.unpaired_seeds(ours.by_seed, theirs.by_seed, confidence, pooled)


def _answers(column: Column, cell: TableCell, seeds: Sequence[int]) -> tuple[str, np.ndarray] | None:
    """(hash of the questions, scores as seeds x questions); None if the score is no mean of stored answers."""
    if column.measure != "score" or column.parts:
        return None
    rows, questions = [], set()
    by_seed = {run.record.seed: run for run in cell.runs}
    for seed in seeds:
        run = by_seed[seed]
        score = score_of(run, column)
        answers = answers_of(run, score) if score is not None else None
        if score is None or answers is None or score.scorer not in answers.scores:
            return None
        row = answers.scores[score.scorer]
        if abs(float(row.mean()) - score.value) > 1e-6:  # F1 or a correlation, which is no mean over answers
            return None
        rows.append(row)
        questions.add(answers.questions)
    return (questions.pop(), np.array(rows)) if len(questions) == 1 else None


def _scaled(comparison: Comparison, scale: float) -> Comparison:
    """The comparison with all values in the cells' units (`scale` 100 for points)."""
    variances = comparison.variances
    return replace(
        comparison,
        difference=scale * comparison.difference,
        low=scale * comparison.low,
        high=scale * comparison.high,
        variances=variances
        and Variances(
            scale**2 * variances.of_seeds,
            variances.seed_freedom,
            scale**2 * variances.of_questions,
            variances.question_freedom,
        ),
    )
