"""Whether a run learned anything: its score must exceed that of a constant, a random guess or the untrained model."""

from __future__ import annotations

from sdsbench.core.record import Score
from sdsbench.results.stored_answers import answers_of
from sdsbench.results.tables.loaded_runs import Run

SYMBOL = "‡"


def floor_of(run: Run, score: Score) -> tuple[float, str] | None:
    """(floor, its name) of a score, in the score's unit: as recorded, or recomputed from stored answers.

    The floor is what a model that learned nothing reaches. For generated answers it is the score before training if
    that was evaluated, else 0; for a loss it is the loss before training if evaluated, else None.
    """
    known: tuple[float, str] | None = None
    if score.floor is not None:
        known = score.floor, score.floor_of or "floor"
    elif score.unit == "share" and (answers := answers_of(run, score)) is not None:
        known = answers.floor(score.scorer)
    if known is not None:
        return known
    for other in run.record.scores:
        if other.stage == "untrained" and (other.evaluation, other.scorer) == (score.evaluation, score.scorer):
            return other.value, "untrained model"
    return (0.0, "no right answer") if score.better == "higher" else None


def not_learned(run: Run, score: Score | None) -> str:
    """Why a trained run counts as having learned nothing; empty if it learned."""
    if score is None or score.stage == "untrained":
        return ""
    classes = score.classes
    if classes is None and (answers := answers_of(run, score)) is not None:
        classes = answers.classes
    if classes == 1:
        return "one prediction for every row"
    if score.retention:  # measures forgetting, not learning
        return ""
    floor = floor_of(run, score)
    if floor is None:
        return ""
    beyond = score.value <= floor[0] + 1e-12 if score.better == "higher" else score.value >= floor[0] - 1e-12
    side = "above" if score.better == "higher" else "below"
    return f"not {side} its floor ({floor[1]}, {score.shown(floor[0])})" if beyond else ""
