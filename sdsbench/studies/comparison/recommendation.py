"""Recommending a method in one sentence with its uncertainty, from a comparison's table and the costs of its runs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdsbench.core.texts import counted, listed
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.contrast import MIN_SEEDS, Contrast, contrast
from sdsbench.results.tables.definition import Column, Row
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.reference_comparison import Compared
from sdsbench.results.tables.reference_comparison import compare as compared_with
from sdsbench.results.tables.run_values import own_cost, score_of
from sdsbench.sweeps.best import rank_of


@dataclass(frozen=True)
class Candidate:
    """The best method, or one that is not significantly different from it."""

    row: Row
    cell: TableCell
    seconds: float | None  # median training time of runs that had the process to themselves; None without any

    @property
    def rate(self) -> float | None:
        """The learning rate of its runs; None if they differ."""
        rates = {run.record.lr for run in self.cell.runs}
        return rates.pop() if len(rates) == 1 else None

    @property
    def best_run(self) -> Run:
        """The run with the best headline scores, ranked as by `export --best`; the smallest seed among equal ones."""

        def rank(run: Run) -> tuple[float, int]:
            found = rank_of(run.record)
            return (float("-inf") if found is None else found), -run.record.seed

        return max(self.cell.runs, key=rank)


@dataclass(frozen=True)
class Recommendation:
    """The recommendation for one column; `chosen` is None if the runs do not decide."""

    sentence: str
    chosen: Candidate | None = None


Cells = Sequence[tuple[Row, TableCell]]
"""The (row, cell) pairs of a column."""


def recommend(built: Built, reference: str) -> list[Recommendation]:
    """One recommendation per score of the task: the cheapest method among those not different from the best.

    For a task of several data sets, their mean is used. Retention scores (eval.also, eval.text) are reported afterwards
    and do not influence the choice. Raises Refused if the table has no run of `reference`.
    """
    compared = compared_with(built, reference)
    columns = built.table.columns
    in_a_mean = {part for column in columns for part in column.parts}
    answers, remarks = [], []
    for column in columns:
        cells = [(row, built.cells[row.name, column.name]) for row in built.table.rows]
        if column.measure != "score":
            remarks.append(Recommendation(_forgetting_sentence(column, cells)))
        elif column.name not in in_a_mean and not _is_retention(column, cells):
            answers.append(_of_column(column, cells, compared))
    return answers + remarks


def _is_retention(column: Column, cells: Cells) -> bool:
    """Whether a column is a retention score, which measures what the base model could do before."""
    scores = [score_of(run, column) for _, cell in cells for run in cell.runs]
    return any(score is not None and score.retention for score in scores)


def _forgetting_sentence(column: Column, cells: Cells) -> str:
    """A sentence with each method's forgetting and its interval."""
    found = [f"{row.title} {_with_interval(column, cell)}" for row, cell in cells if cell.ours is not None]
    return f"{_where(column)}: {', '.join(found) or 'no run has it'}."


def _of_column(column: Column, cells: Cells, compared: Compared) -> Recommendation:
    usable = [(row, cell) for row, cell in cells if cell.ours is not None and not cell.apart]
    best = [_candidate(row, cell) for row, cell in usable if cell.mark in ("best", "among_best")]
    few = [row.title for row, cell in usable if len(cell.by_seed) < MIN_SEEDS]

    def answer(*words: str, chosen: Candidate | None = None) -> Recommendation:
        return Recommendation(f"{_where(column)}: {' '.join(filter(None, words))}", chosen)

    failed = " ".join(_failed_sentences(cells))
    if not best:
        same = (
            "no test tells runs apart that score the same" if len(usable) > 1 else "not two methods have finished runs"
        )
        reason = f"fewer than {MIN_SEEDS} seeds of {listed(few)}" if few else same
        return answer(f"nothing can be said yet: {reason}.", failed)
    learned = [candidate for candidate in best if len(candidate.cell.unlearned) < len(candidate.cell.runs)]
    if not learned:
        return answer("no method learned the task: no run is better than its floor.", failed)
    chosen = _cheapest(column, learned)
    best_text, cost_text = _best_sentence(column, learned, chosen), _cost_sentence(learned, chosen)
    return answer(
        best_text,
        cost_text,
        _reference_sentence(compared, column, learned, chosen),
        failed,
        _choice_sentence(chosen),
        chosen=chosen,
    )


def _failed_sentences(cells: Cells) -> Iterator[str]:
    """For each method, the numbers of runs that learned nothing or did not finish, if there are any."""
    for row, cell in cells:
        if cell.unlearned:
            yield f"{len(cell.unlearned)} of {len(cell.runs)} runs of {row.title} learned nothing."
        if ended := Counter(sorted(str(run.record.status) for run in cell.unfinished)):
            yield f"Not finished of {row.title}: {counted(ended)}."


def _candidate(row: Row, cell: TableCell) -> Candidate:
    own = [run.record.seconds.train for run in cell.runs if own_cost(run, "seconds.train")]
    return Candidate(row, cell, statistics.median(own) if own else None)


def _cheapest(column: Column, candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the least training time (trainable parameters if a time is missing), then the best score."""
    timed = all(candidate.seconds is not None for candidate in candidates)
    sign = -1 if column.better == "higher" else 1

    def cost(candidate: Candidate) -> tuple[float, float]:
        assert candidate.cell.ours is not None
        trained = candidate.cell.runs[0].record.parameters
        size = float(trained.trainable) if trained else float("inf")
        return (candidate.seconds or 0.0) if timed else size, sign * candidate.cell.ours.mean

    return min(candidates, key=cost)


def _best_sentence(column: Column, candidates: Sequence[Candidate], chosen: Candidate) -> str:
    """The best method with its score's interval; if there are several, each one's difference to `chosen`."""
    if len(candidates) == 1:
        return f"{chosen.row.title} is best, {_with_interval(column, chosen.cell)}."
    differences = [
        f"{other.row.title} - {chosen.row.title}: {_difference(column, contrast(column, other.cell, chosen.cell))}"
        for other in candidates
        if other is not chosen
    ]
    names = listed([candidate.row.title for candidate in candidates])
    return f"{names} cannot be told apart ({'; '.join(differences)})."


def _with_interval(column: Column, cell: TableCell) -> str:
    score, digits = cell.ours, column.digits
    assert score is not None
    interval = f" [{score.low:{digits}}, {score.high:{digits}}]" if score.n > 1 else ""
    return f"{score.mean:{digits}}{interval}"


def _difference(column: Column, found: Contrast) -> str:
    compared, digits = found.comparison, column.digits
    interval = f" [{compared.low:{digits}}, {compared.high:{digits}}]" if compared.low == compared.low else ""
    return f"{compared.difference:+{digits}}{interval}{', ' + found.untested if found.untested else ''}"


def _cost_sentence(candidates: Sequence[Candidate], chosen: Candidate) -> str:
    others = [candidate for candidate in candidates if candidate is not chosen]
    if not others or chosen.seconds is None or any(other.seconds is None for other in others):
        return ""
    dearest = max(others, key=lambda other: other.seconds or 0.0)
    ratio = (dearest.seconds or 0.0) / chosen.seconds if chosen.seconds else 1.0
    if ratio < 1.05:
        return "They cost the same."
    return f"{chosen.row.title} trains {ratio:.1f}x faster than {dearest.row.title}."


def _reference_sentence(compared: Compared, column: Column, candidates: Sequence[Candidate], chosen: Candidate) -> str:
    """The chosen method's difference to the reference; empty if the reference is itself a candidate."""
    rows = [candidate.row.name for candidate in candidates]
    for found in compared.differences:
        reference = found.reference
        if found.column is not column or found.row is not chosen.row or reference is None or found.contrast is None:
            continue
        if reference.name not in rows and found.contrast.comparison.low == found.contrast.comparison.low:
            return f"Against {reference.title}: {_difference(column, found.contrast)}."
    return ""


def _choice_sentence(chosen: Candidate) -> str:
    rate = f" at train.lr={chosen.rate:g}" if chosen.rate is not None else ""
    return f"Take {chosen.row.title}{rate}."


def _where(column: Column) -> str:
    return f"{column.group}, {column.title}" if column.group else column.title
