"""The summary that a finished run prints."""

from __future__ import annotations

from collections.abc import Iterator

from sdsbench.core.clock import clock
from sdsbench.core.grouped import grouped
from sdsbench.core.record import Record, Score


def summary(record: Record) -> str:
    """Scores before and after training, one line each, and the run's time and memory, as aligned text."""
    lines = [f"run {record.run_id}  {record.status}  {record.model} {record.method} {record.task} seed {record.seed}"]
    lines += _score_lines(record)
    if record.losses:
        losses = record.losses
        lines.append(f"  loss           {losses.first:.4f} -> {losses.tail_mean:.4f} in {losses.steps} steps")
    seconds = record.seconds
    lines.append(
        f"  time           load {clock(seconds.load)}, init {clock(seconds.init)}, "
        f"train {clock(seconds.train)}, eval {clock(seconds.eval)}"
    )
    if record.memory:
        lines.append(f"  peak memory    {record.memory.peak_bytes / 2**30:.2f} GiB ({record.memory.kind})")
    return "\n".join(lines)


def _score_lines(record: Record) -> Iterator[str]:
    """One line for each score and stage; evaluation and scorer are printed before the first of their stages only."""
    rows = [
        ("" if place else evaluation, "" if place else scorer, _stage(score), _value(score))
        for (evaluation, scorer), scores in grouped(record.scores, lambda s: (s.evaluation, s.scorer)).items()
        for place, score in enumerate(scores)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *names, value in rows:
        aligned = (f"{name:<{width}}" for name, width in zip(names, widths, strict=False))
        yield f"  {'  '.join(aligned)}  {value}"


def _stage(score: Score) -> str:
    return score.stage if score.along is None else f"along {score.along:g}"


def _value(score: Score) -> str:
    error = f" ± {score.shown(score.stderr)}" if score.stderr is not None else ""
    counts = ", ".join(filter(None, (f"n {score.n}", score.note)))
    return f"{score.shown(score.value)}{error} ({counts}){' *' if score.headline else ''}"
