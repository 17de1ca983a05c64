"""What was decided, before it starts: model, data, number format, batch, parameters, expected duration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from sdsbench.core.clock import clock
from sdsbench.core.record import Parameters
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.training.loop import Training
from sdsbench.training.precision import Device

if TYPE_CHECKING:
    from sdsbench.runs.prepare import Loaded


def banner(
    run_id: str, config: RunConfig, loaded: Loaded, source_reason: str, parameters: Parameters, training: Training
) -> str:
    """The decisions of a run as text, one a line."""
    train, method, device = config.train, config.method, loaded.device
    rows, weights = loaded.data.training, loaded.model.weights
    tokens = sum(example.length for example in training.examples) / len(training.examples)
    steps, batch = training.total_steps, train.batch_size * train.accumulation
    shown = ("rank", "alpha", "dropout", "type", "options")
    settings = ", ".join(f"{key} {getattr(method, key)}" for key in shown if hasattr(method, key))
    seconds = expected_seconds(parameters.total, tokens * batch, steps, device)
    data = {"embedded": "embedded (generated, not the real set)"}.get(rows.source, rows.source)
    lines = {
        "run": run_id,
        "model": f"{config.model.name} from {weights.source}, {parameters.total / 1e6:.1f} M parameters",
        "method": f"{method.name}{' (' + settings + ')' if settings else ''}, {parameters.trainable:,} trainable",
        "data": f"{rows.dataset}, {data}: {len(rows)} rows; {source_reason}; fingerprint {rows.fingerprint[:12]}",
        "compute": f"{device.device_name}, {device.threads} threads, "
        f"{str(device.dtype).removeprefix('torch.')}: {device.dtype_reason}",
        "train": f"{steps} steps of {train.batch_size} x {train.accumulation} = {batch} examples, "
        f"{train.optimizer} lr {train.lr:g} {train.schedule}, seed {config.seed}",
        "expected": f"about {clock(seconds)} of training (from a matrix product measured now), then evaluation",
    }
    return "\n".join(f"{key:>9}  {value}" for key, value in lines.items())


def expected_seconds(parameters: int, tokens_per_step: float, steps: int, device: Device) -> float:
    """6 operations a parameter and token, at half the speed of a 1024 x 1024 x 1024 product here."""
    size = 1024
    left, right = (torch.ones(size, size, device=device.device, dtype=device.dtype) for _ in range(2))
    left @ right
    started = time.perf_counter()
    float((left @ right)[0, 0])
    speed = 2 * size**3 / (time.perf_counter() - started)
    return 6 * parameters * tokens_per_step * steps / (0.5 * speed)
