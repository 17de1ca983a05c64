"""What was decided, said as soon as it is known: before torch loads, with data and weights here, with the method in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sdsbench.core.clock import clock
from sdsbench.core.lazy import torch
from sdsbench.core.processor import Load, shared_text, usable_cores
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source

if TYPE_CHECKING:
    from sdsbench.runs.prepare import Loaded
    from sdsbench.training.precision import Device

_SETTINGS = ("rank", "alpha", "dropout", "type", "options")


def announcement(config: RunConfig) -> str:
    """What the configuration alone says; loads no torch, so that a user sees within a second what was understood.

    Raises Unavailable where no source has the data.
    """
    config, reason = resolve_source(config)
    train, method = config.train, config.method
    settings = ", ".join(f"{key} {getattr(method, key)}" for key in _SETTINGS if hasattr(method, key))
    source = {"embedded": "embedded (generated, not the real set)"}.get(config.data.source, config.data.source)
    return _lines(
        {
            "run": run_id(config),
            "method": f"{method.name}{' (' + settings + ')' if settings else ''} on {config.model.name}",
            "task": f"{config.task.name}, protocol {config.protocol.name}, seed {config.seed}",
            "data": f"{source}; {reason}",
            "train": f"{train.batch_size} examples a step, {train.optimizer} lr {train.lr:g} {train.schedule}",
        }
    )


def banner(config: RunConfig, loaded: Loaded, steps: int, started: Load | None) -> str:
    """What data and weights add, before anything is computed with them; `started`: the cores when the run began."""
    device, rows, weights = loaded.device, loaded.data.training, loaded.model.weights
    parameters = sum(parameter.numel() for parameter in loaded.model.model.parameters())
    tokens = sum(example.length for example in loaded.examples) / len(loaded.examples)
    seconds = expected_seconds(parameters, tokens * config.train.batch_size, steps, device)
    shared = shared_text(started)
    return _lines(
        {
            "model": f"{config.model.name} from {weights.source}, {parameters / 1e6:.1f} M parameters",
            "rows": f"{len(rows)} of {rows.dataset}, fingerprint {rows.fingerprint[:12]}",
            "compute": f"{device.device_name}, {device.threads} threads of {usable_cores()} cores, "
            f"{str(device.dtype).removeprefix('torch.')}: {device.dtype_reason}",
            "expected": f"{steps} steps, about {clock(seconds)} of training (from a matrix product measured now), "
            "then evaluation",
            **({"beside": shared} if shared else {}),
        }
    )


def trainable(parameters: int, micro_tokens: int | None) -> str:
    """What the method adds, and how a step is cut."""
    cut = "each step in one pass" if micro_tokens is None else f"in passes of at most {micro_tokens:,} tokens"
    return _lines({"trains": f"{parameters:,} parameters, {cut}"})


def _lines(lines: dict[str, str]) -> str:
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
