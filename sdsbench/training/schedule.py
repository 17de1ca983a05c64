"""Learning-rate schedules, as factors of the peak learning rate."""

from __future__ import annotations

import math


def factor(schedule: str, step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor (0 to 1) of optimizer step `step` (1 to total_steps), equal to that of transformers' schedulers.

    Linear warm-up from 0, then constant, linear decay to 0, or half a cosine to 0.
    """
    done = step - 1
    if done < warmup_steps:
        return done / warmup_steps
    progress = (done - warmup_steps) / max(1, total_steps - warmup_steps)
    return {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[schedule]


def warmup_steps(ratio: float, total_steps: int, rounding: str = "up") -> int:
    """Number of steps of linear warm-up: ratio * total_steps, rounded `up` or `down`."""
    return math.ceil(ratio * total_steps) if rounding == "up" else int(ratio * total_steps)
