"""Learning-rate schedules as a factor of the peak rate."""

from __future__ import annotations

import math


def factor(schedule: str, step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor for optimizer step `step` (1 to total_steps), as transformers' schedulers give it for that step.

    Linear warm-up from 0, then constant, linear to 0, or half a cosine to 0.
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
    """Steps of linear warm-up: the ratio, rounded up or down."""
    return math.ceil(ratio * total_steps) if rounding == "up" else int(ratio * total_steps)
