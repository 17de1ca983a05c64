"""The stored answers of a run to one evaluation as arrays of scores; each file is read once and cached."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.record import Score
from sdsbench.core.samples import correct, path_of, questions_of
from sdsbench.evaluation.score_floors import chance_floor, constant_floor
from sdsbench.results.bundles.opened import shown
from sdsbench.results.frames import samples_of
from sdsbench.results.tables.loaded_runs import Run


@dataclass(frozen=True)
class Answers:
    """`questions` identifies the questions in order; `scores`: scorer -> array with one score per question."""

    questions: str
    scores: Mapping[str, np.ndarray]
    classes: int | None  # number of distinct predictions of a classifier
    labels: tuple[float, ...] | None  # the true classes of a classifier
    choices: tuple[int, ...] | None  # number of choices per multiple-choice question
    truncated_wrong: Mapping[str, int] | None  # by scorer: number of truncated answers graded wrong

    def floor(self, scorer: str) -> tuple[float, str] | None:
        """(score, name) of a model that learned nothing, by this scorer; None for generated answers."""
        if self.choices:
            return chance_floor(self.choices), "chance"
        if self.labels:
            return constant_floor(scorer, self.labels), "majority class" if scorer == "accuracy" else "constant"
        return None


def answers_of(run: Run, score: Score) -> Answers | None:
    """The answers behind a score; None if none are stored or the file is unreadable."""
    path = path_of(run.folder, score.evaluation, score.stage)
    try:
        changed = path.lstat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # this user may not look: the reader says so
        changed = 0
    try:
        return _read(run.folder, score.evaluation, score.stage, changed)
    except (Unavailable, DamagedFile) as error:
        run.problems[f"samples of {score.evaluation} ({score.stage})"] = shown(str(error))
        return None


@functools.lru_cache(maxsize=20_000)
def _read(folder: Path, evaluation: str, stage: str, changed: int) -> Answers | None:
    samples = samples_of(folder, evaluation, stage)
    if not samples:
        return None
    names = sorted(set.intersection(*(set(sample.get("scores", {})) for sample in samples)))
    scores = {name: np.array([correct(sample, name) for sample in samples]) for name in names}
    responses: list[Any] = [sample.get("response") for sample in samples]
    targets: list[Any] = [sample.get("target") for sample in samples]
    labelled = all(isinstance(value, int | float) for value in (*responses, *targets))
    choices = all(isinstance(value, list) for value in responses)
    return Answers(
        questions_of(samples),
        scores,
        len(set(responses)) if labelled else None,
        tuple(map(float, targets)) if labelled else None,
        tuple(len(value) for value in responses) if choices else None,
        _truncated(samples, scores),
    )


def _truncated(samples: Sequence[Mapping[str, Any]], scores: Mapping[str, np.ndarray]) -> dict[str, int] | None:
    if not all("truncated" in sample for sample in samples):
        return None
    cut = np.array([bool(sample["truncated"]) for sample in samples])
    return {name: int(np.sum(cut & (values < 1))) for name, values in scores.items()}
