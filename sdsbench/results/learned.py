"""Whether a run learned anything: a score that a constant, a guess or the untrained model reaches is no evidence."""

from __future__ import annotations

from sdsbench.core.record import Score
from sdsbench.results.answers import answers_of
from sdsbench.results.tables.runs import Run

SYMBOL = "‡"


def floor_of(run: Run, score: Score) -> tuple[float, str]:
    """The floor of a score (a fraction) and its name: recorded, or found again from the stored answers.

    Of generated answers it is the score of the model before training, where that was evaluated, else 0.
    """
    known: tuple[float, str] | None = None
    if score.floor is not None:
        known = score.floor, score.floor_of or "floor"
    elif (answers := answers_of(run, score)) is not None:
        known = answers.floor(score.scorer)
    if known is not None:
        return known
    for other in run.record.scores:
        if other.stage == "untrained" and (other.evaluation, other.scorer) == (score.evaluation, score.scorer):
            return other.value, "untrained model"
    return 0.0, "no right answer"


def not_learned(run: Run, score: Score | None) -> str:
    """Why a trained run counts as one that did not learn; empty for a run that did."""
    if score is None or score.stage == "untrained":
        return ""
    classes = score.classes
    if classes is None and (answers := answers_of(run, score)) is not None:
        classes = answers.classes
    if classes == 1:
        return "one prediction for every row"
    floor, name = floor_of(run, score)
    return f"not above its floor ({name}, {100 * floor:.2f})" if score.value <= floor + 1e-12 else ""
