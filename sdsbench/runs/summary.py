"""What a finished run says at its end."""

from __future__ import annotations

from sdsbench.core.clock import clock
from sdsbench.core.record import Record


def summary(record: Record) -> str:
    """Scores before and after training, cost and where the record is, as aligned text."""
    lines = [f"run {record.run_id}  {record.status}  {record.model} {record.method} {record.task} seed {record.seed}"]
    stages = {(s.evaluation, s.scorer): {} for s in record.scores}  # type: dict[tuple[str, str], dict[str, str]]
    for score in record.scores:
        error = f" ± {score.shown(score.stderr)}" if score.stderr is not None else ""
        mark = " *" if score.headline else ""
        counts = ", ".join(filter(None, (f"n {score.n}", score.note)))
        stage = score.stage if score.along is None else f"along {score.along:g}"
        stages[score.evaluation, score.scorer][stage] = f"{score.shown(score.value)}{error} ({counts}){mark}"
    width, wide = (max(map(len, names), default=0) for names in zip(*stages, strict=True)) if stages else (0, 0)
    for (evaluation, scorer), found in stages.items():
        values = "  ".join(f"{stage} {value}" for stage, value in found.items())
        lines.append(f"  {evaluation:<{width}} {scorer:<{wide}}  {values}")
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
