"""The test questions on which two methods disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdsbench.core.samples import correct
from sdsbench.results.report.boards import Board
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.run_values import score_of

SHOWN = 12


@dataclass(frozen=True)
class DisputedQuestion:
    """A question that one method answers correctly and the other does not; `winner` is the correct method."""

    id: str
    prompt: str
    target: str
    ours: str
    theirs: str
    winner: str


@dataclass(frozen=True)
class Disagreement:
    """The best method against another at one common seed: counts, and some of the questions.

    No p-value: one run of each says nothing about the methods in general; another seed may show the opposite.
    """

    ours: str
    theirs: str
    seed: int
    runs: tuple[str, str]
    only_ours: int
    only_theirs: int
    both: int
    neither: int
    questions: tuple[DisputedQuestion, ...]


def disagreements(board: Board) -> list[Disagreement]:
    """The first row against each other row; rows without right/wrong answers at a common seed are skipped."""
    valued = board.valued
    found = []
    for row, cell in valued[1:]:
        best_row, best = valued[0]
        common = sorted(set(best.by_seed) & set(cell.by_seed))
        if not common:
            continue
        a, b = _run(best.runs, common[0]), _run(cell.runs, common[0])
        result = _between(board, a, b, best_row.title, row.title, common[0])
        if result is not None:
            found.append(result)
    return found


def _between(board: Board, a: Run, b: Run, ours: str, theirs: str, seed: int) -> Disagreement | None:
    answers = [run.answers(board.column.evaluation, board.column.stage) for run in (a, b)]
    score = score_of(a, board.column)
    if score is None or not answers[0] or len(answers[0]) != len(answers[1]):
        return None
    if any(
        answer.get("scores", {}).get(score.scorer, "absent") not in (0, 1, None) for side in answers for answer in side
    ):
        return None
    right = [[bool(correct(answer, score.scorer)) for answer in side] for side in answers]
    pairs = list(zip(*right, strict=True))
    apart = [i for i, (x, y) in enumerate(pairs) if x != y][:SHOWN]
    questions = tuple(
        DisputedQuestion(
            str(answers[0][i].get("id", i)),
            str(answers[0][i].get("prompt", "")),
            str(answers[0][i].get("target", "")),
            str(answers[0][i].get("response", "")),
            str(answers[1][i].get("response", "")),
            ours if pairs[i][0] else theirs,
        )
        for i in apart
    )
    counts = {pair: pairs.count(pair) for pair in ((True, False), (False, True), (True, True), (False, False))}
    return Disagreement(ours, theirs, seed, (a.id, b.id), counts[True, False], counts[False, True], counts[True, True],
                        counts[False, False], questions)  # fmt: skip


def _run(runs: Sequence[Run], seed: int) -> Run:
    return next(run for run in runs if run.record.seed == seed)
