"""Whether runs are admissible evidence for a claim; each reason against them states the numbers that were checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sdsbench.results.claims.claim import Claim
from sdsbench.results.claims.decide import answer_at
from sdsbench.results.statistics.contrasts import Comparison
from sdsbench.results.stored_answers import answers_of
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.contrast import MIN_SEEDS
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.run_values import score_of


def reasons(claim: Claim, column: Column, cells: Sequence[TableCell]) -> list[str]:
    """Reasons why the claim's one or two cells are inadmissible; empty if they are admissible."""
    found: list[str] = []
    for cell in cells:
        found += [f"{cell.row}: runs of one side differ in {problem}" for problem in cell.problems]
        if len(cell.runs) < MIN_SEEDS:
            found.append(f"{cell.row}: {len(cell.runs)} seed{'s' * (len(cell.runs) != 1)}, {MIN_SEEDS} are needed")
        if column.measure == "score":  # costs, such as initialisation time, do not depend on the learning rate
            collapsed = Counter(cell.unlearned.values())
            found += _tuning(claim, cell)
            found += [f"{cell.row}: {n} of {len(cell.runs)} runs did not learn ({why})" for why, n in collapsed.items()]
    return list(dict.fromkeys(found))


def depends_on_truncation(claim: Claim, column: Column, cells: Sequence[TableCell], comparison: Comparison) -> str:
    """A reason if the claim's answer could change, had the truncated outputs been correct.

    Tests the worst case for a decided answer: all truncated outputs of the disfavoured side correct, those of the other
    side wrong. Empty if the answer stays the same, or if the records do not say which outputs were truncated.
    """
    if column.measure != "score" or len(cells) < 2:
        return ""
    ours, theirs = (_truncated_points(column, cell) for cell in cells)
    decided = answer_at(claim.test, comparison, claim.margin, 0.95)
    if decided == "undecided":
        return ""
    for shift in (ours, -theirs):
        low, difference, high = (x + shift for x in (comparison.low, comparison.difference, comparison.high))
        moved = replace(comparison, low=low, difference=difference, high=high)
        if answer_at(claim.test, moved, claim.margin, 0.95) != decided:
            return (
                f"the score hangs on truncated outputs: {ours:.1f} and {theirs:.1f} points of wrong answers were "
                "cut at task.max_new_tokens"
            )
    return ""


def _tuning(claim: Claim, cell: TableCell) -> list[str]:
    tunings = {(t.key, t.chosen, tuple(t.grid)): t for run in cell.runs if (t := run.record.tuning)}
    untuned = sum(run.record.tuning is None for run in cell.runs)
    found = [f"{cell.row}: not tuned, and the claim is about tuned methods"] if claim.tuned and untuned else []
    for tuning in tunings.values():
        if not tuning.interior:
            grid = f"{min(tuning.grid):g} to {max(tuning.grid):g}"
            found.append(f"{cell.row}: its best {tuning.key} {tuning.chosen:g} is an end of the grid ({grid})")
    return found


def _truncated_points(column: Column, cell: TableCell) -> float:
    """Points (of 100) that a cell lost to truncated outputs, mean over its runs."""
    shares = []
    for run in cell.runs:
        score = score_of(run, column)
        answers = answers_of(run, score) if score is not None else None
        if score is not None and answers is not None and answers.truncated_wrong is not None:
            shares.append(100 * answers.truncated_wrong.get(score.scorer, 0) / score.n)
    return sum(shares) / len(shares) if shares else 0.0
