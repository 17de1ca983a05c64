"""A run compared with its reproduction: bitwise the same, same answers, within the spread of seeds, or different."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sdsbench.core import samples, step_log
from sdsbench.core.file_hash import content_hash
from sdsbench.core.hashing import canonical_json
from sdsbench.core.record import STAGES, Provenance, Record, Score, Unit, score_text
from sdsbench.results.frames import Found, evaluations_with_samples
from sdsbench.results.statistics.intervals import t_quantile
from sdsbench.runs.origin import recorded_origin

Answer = Literal["bitwise the same", "the same answers", "within the spread", "different", "not reproduced"]
EXIT_CODES: Mapping[Answer, int] = {
    "bitwise the same": 0, "the same answers": 10, "within the spread": 11, "different": 12,
}  # fmt: skip
"""Outcomes from best to worst, with exit codes. A run that could not be trained has its error's exit code instead."""


@dataclass(frozen=True)
class ScoreDifference:
    """One headline score of the original (theirs) and the reproduction (ours), and the spread expected between seeds.

    Numbers are as in records (a share from 0 to 1). `half_width`: half of the 95 % interval of the difference of two
    runs with different seeds, t(n - 1) x standard deviation over n seeds x sqrt(2); None below two seeds in the bundle.
    """

    evaluation: str
    scorer: str
    theirs: float
    ours: float
    seeds: int
    half_width: float | None
    unit: Unit = "share"
    stage: str = "trained"

    @property
    def title(self) -> str:
        """The score's name; with its stage where that is not after training."""
        return f"{self.evaluation} ({self.scorer}{'' if self.stage == 'trained' else f', {self.stage}'})"

    def shown(self, value: float, sign: str = "") -> str:
        """A value of this score for display, in points (of 100) for shares."""
        return score_text(value, self.unit, sign)

    @property
    def within(self) -> bool:
        """Whether the two scores differ by at most `half_width` (must be equal if that is unknown)."""
        return abs(self.ours - self.theirs) <= (1e-9 if self.half_width is None else self.half_width + 1e-9)

    def __str__(self) -> str:
        spread = (
            f"the spread is not known: {self.seeds} seed in the bundle" if self.half_width is None
            else f"two of its {self.seeds} seeds lie within ±{self.shown(self.half_width)} of each other"
        )  # fmt: skip
        theirs, ours, between = (
            self.shown(self.theirs),
            self.shown(self.ours),
            self.shown(self.ours - self.theirs, "+"),
        )
        return f"{self.title} {theirs} -> {ours}, difference {between}; {spread}"


@dataclass(frozen=True)
class ChangedAnswer:
    """A question that the two runs answer differently."""

    evaluation: str
    index: int
    target: str
    theirs: str
    ours: str


@dataclass(frozen=True)
class ReproducedRun:
    """The outcome of one run's reproduction."""

    run_id: str
    answer: Answer
    theirs: Found
    ours: Found | None = None
    reason: str = ""  # why there is no reproduction
    differences: tuple[ScoreDifference, ...] = ()
    loss: float | None = None  # largest absolute difference of a step's loss
    questions: int = 0
    other_verdicts: tuple[ChangedAnswer, ...] = ()
    other_words: int = 0  # number of answers with another wording but the same verdict
    made_otherwise: tuple[str, ...] = field(default=())  # differences of code, torch, device ...
    exit_code: int = 0


def compared(theirs: Found, ours: Found, siblings: Sequence[Record], adapter: str | None) -> ReproducedRun:
    """Compare a reproduction (ours) with the run of a bundle (theirs).

    `siblings`: finished runs of the bundle, for the spread over seeds; `adapter`: sha256 of their trained tensors.
    """
    questions, other, words = _answers(theirs.folder, ours.folder)
    differences = tuple(_differences(theirs.record, ours.record, siblings))
    same_scores = _scores(theirs.record) == _scores(ours.record)
    answer: Answer = "different"
    if same_scores and not other and not words and _bitwise(theirs, ours, adapter):
        answer = "bitwise the same"
    elif same_scores and questions and not other:
        answer = "the same answers"
    elif differences and all(difference.within for difference in differences):
        answer = "within the spread"
    return ReproducedRun(
        run_id=theirs.record.run_id, answer=answer, theirs=theirs, ours=ours, differences=differences,
        loss=_largest_loss(theirs.folder, ours.folder), questions=questions, other_verdicts=tuple(other),
        other_words=words, made_otherwise=tuple(made_otherwise(theirs.record, ours.record)),
        exit_code=EXIT_CODES[answer],
    )  # fmt: skip


def made_otherwise(theirs: Record, ours: Record) -> list[str]:
    """The differences of code, versions and hardware between the two runs, each as `what: theirs, ours`."""
    one, other = theirs.provenance, ours.provenance
    if one is None or other is None:
        return ["what one of them was made with is not recorded"]
    left, right = recorded_origin(one) | _surroundings(one), recorded_origin(other) | _surroundings(other)
    return [
        f"{name}: {_short(left.get(name))}, here {_short(right.get(name))}"
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    ]


def _surroundings(provenance: Provenance) -> dict[str, str]:
    plain = {"device": provenance.device, "type": provenance.dtype, "threads": str(provenance.threads)}
    return plain | {"python": provenance.python} | provenance.packages


def _short(text: str | None) -> str:
    if text is None:
        return "none"
    return text[:12] if len(text) == 64 else text


def _scores(record: Record) -> list[dict[str, Any]]:
    return [score.model_dump() for score in record.scores]


def _bitwise(theirs: Found, ours: Found, adapter: str | None) -> bool:
    """Whether all step numbers and counts are equal, and the trained tensors too if the bundle has their hash."""
    one, other = theirs.record, ours.record
    facts = ((record.losses, record.tokens, record.parameters) for record in (one, other))
    left, right = (_steps(found.folder) for found in (theirs, ours))
    trained = ours.folder / "adapter" / "adapter.safetensors"
    same_tensors = adapter is None or not trained.is_file() or content_hash(trained) == adapter
    return len({canonical_json([part and part.model_dump() for part in parts]) for parts in facts}) == 1 and (
        (not left or left == right) and same_tensors
    )


def _steps(folder: Path) -> list[dict[str, Any]]:
    """The step log without times and without probe lines: probes only observe, so runs may differ in having them."""
    lines = step_log.read(folder / "metrics.jsonl")
    return [
        {key: line[key] for key in line if key != "seconds"} for line in lines if line["kind"] in ("train", "method")
    ]


def _largest_loss(one: Path, other: Path) -> float | None:
    left, right = ([line["loss"] for line in _steps(folder) if line["kind"] == "train"] for folder in (one, other))
    pairs = list(zip(left, right, strict=False))
    return max(abs(x - y) for x, y in pairs) if pairs else None


def _answers(one: Path, other: Path) -> tuple[int, list[ChangedAnswer], int]:
    """(number of common questions, those with another verdict, number of other answers with another wording)."""
    count, found, words = 0, [], 0
    stored = [(name, stage) for stage in STAGES for name in evaluations_with_samples(one, stage)]
    for name, stage in stored:
        path = samples.path_of(other, name, stage)
        left, right = samples.read(samples.path_of(one, name, stage)), samples.read(path) if path.exists() else []
        count += min(len(left), len(right))
        if len(left) != len(right):
            found.append(ChangedAnswer(name, -1, "", f"{len(left)} answers", f"{len(right)} answers"))
        for x, y in zip(left, right, strict=False):
            both = x.keys() & y.keys()  # a verdicts-only bundle has no texts
            texts = [str(answer.get("response", "")) for answer in (x, y)]
            if any(x[key] != y[key] for key in ("scores", "target", "prompt") if key in both):
                found.append(ChangedAnswer(name, x["index"], str(x.get("target", "")), *texts))
            elif samples.holds_answer(x) and samples.holds_answer(y) and texts[0] != texts[1]:
                words += 1
    return count, found, words


def _differences(theirs: Record, ours: Record, siblings: Sequence[Record]) -> list[ScoreDifference]:
    found = []
    for score in (score for score in theirs.scores if score.headline and score.stage != "untrained"):
        here = _like(score, ours)
        values = [
            s.value for record in siblings if _setting(record) == _setting(theirs) and (s := _like(score, record))
        ]
        ours_value = math.nan if here is None else here.value
        found.append(
            ScoreDifference(
                score.evaluation,
                score.scorer,
                score.value,
                ours_value,
                len(values),
                _half_width(values),
                score.unit,
                score.stage_text,
            )
        )
    return found


def _like(score: Score, record: Record) -> Score | None:
    """The record's score of the same evaluation, scorer, stage and share of the update."""

    def which(one: Score) -> tuple[object, ...]:
        return one.evaluation, one.scorer, one.stage, one.along

    return next((other for other in record.scores if which(other) == which(score)), None)


def _setting(record: Record) -> str:
    """JSON text of the configuration without its seeds."""
    return canonical_json({key: value for key, value in record.config.items() if key not in ("seed", "seeds")})


def _half_width(values: Sequence[float]) -> float | None:
    return None if len(values) < 2 else t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) * math.sqrt(2)
