"""The summary that a finished run prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sdsbench.core.clock import clock
from sdsbench.core.grouped import grouped
from sdsbench.core.record import Losses, Record, Score
from sdsbench.evaluation.metrics import wilson_interval


def summary(record: Record, folder: Path) -> str:
    """Scores before and after training, one line each, what their signs mean, and the run's losses, time, memory and
    folder, as aligned text."""
    lines = [f"run {record.run_id}  {record.status}  {record.model} {record.method} {record.task} seed {record.seed}"]
    lines += [*_score_lines(record), *_legend(record)]
    if record.losses:
        lines.append(f"  loss           {_losses(record.losses)}")
    seconds = record.seconds
    lines.append(
        f"  time           load {clock(seconds.load)}, init {clock(seconds.init)}, "
        f"train {clock(seconds.train)}, eval {clock(seconds.eval)}"
    )
    if record.memory:
        lines.append(f"  peak memory    {record.memory.peak_bytes / 2**30:.2f} GiB ({record.memory.kind})")
    lines.append(f"  folder         {folder}")
    return "\n".join(lines)


def _losses(losses: Losses) -> str:
    tail = max(1, losses.steps // 10)  # the steps of tail_mean (runs/finish.py)
    last = f"last of {losses.steps} steps" if tail == 1 else f"mean of the last {tail} of {losses.steps} steps"
    return f"{losses.first:.4f} (first step) -> {losses.tail_mean:.4f} ({last})"


def _legend(record: Record) -> Iterator[str]:
    """The meaning of the signs in the lines of the scores."""
    if any(score.stderr and not _all_or_none(score) for score in record.scores):
        yield "  ±              standard error over the n questions; in tables 95 % over seeds"
    if any(map(_all_or_none, record.scores)):
        yield "  [ ]            95 % Wilson interval, as all or none of the answers are right"
    if any(score.headline for score in record.scores):
        yield "  *              the scorer that tables use for this evaluation"


def _all_or_none(score: Score) -> bool:
    """Whether all answers or none are right, so that the standard error of 0 says nothing about the uncertainty."""
    return score.unit == "share" and score.stderr == 0 and score.value in (0, 1)


def _score_lines(record: Record) -> Iterator[str]:
    """One line for each score and stage; evaluation and scorer are printed before the first of their stages only."""
    rows = [
        ("" if place else evaluation, "" if place else scorer, score.stage_text, _value(score))
        for (evaluation, scorer), scores in grouped(record.scores, lambda s: (s.evaluation, s.scorer)).items()
        for place, score in enumerate(scores)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *names, value in rows:
        aligned = (f"{name:<{width}}" for name, width in zip(names, widths, strict=False))
        yield f"  {'  '.join(aligned)}  {value}"


def _value(score: Score) -> str:
    error = f" ± {score.shown(score.stderr)}" if score.stderr is not None else ""
    if _all_or_none(score):
        low, high = map(score.shown, wilson_interval(score.value, score.n))
        error = f" [{low}, {high}]"
    counts = ", ".join(filter(None, (f"n {score.n}", score.note)))
    return f"{score.shown(score.value)}{error} ({counts}){' *' if score.headline else ''}"
