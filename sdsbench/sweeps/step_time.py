"""Measure how fast this machine's CPU computes a model, by a few short passes through a part of it.

All blocks of a model take the same time. So the model is timed with one and with two blocks, and the time of all blocks
is extrapolated. Values do not affect the time, so no weights are loaded. The base is frozen: backward computes the
gradient of the inputs and of no weight; cost.py then multiplies by the method's `relative_time`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import psutil
import torch
from torch import nn

from sdsbench.core.hashing import canonical_json
from sdsbench.models.architecture import hashable
from sdsbench.models.load import without_weights
from sdsbench.runs.configuration.combinations import KnownArchitecture
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.memory import CPU_TOKENS
from sdsbench.sweeps.cost import BYTES, Speed, passed_weights
from sdsbench.sweeps.workload import Workload
from sdsbench.tasks import base as tasks
from sdsbench.training.precision import select_device

WHOLE = 2e7  # models with at most this many weights are timed with all blocks
OPERATIONS = 1e10  # a timed pass is shortened to about this many floating-point operations, but not below 16 tokens
REPEATS = 2


def cpu_speed(config: RunConfig, known: KnownArchitecture, work: Workload) -> Speed | None:
    """Speed of such a run on this CPU with the run's threads; None if even the timed part does not fit in memory."""
    weights = passed_weights(config, known)
    device = select_device("cpu", config.dtype, config.threads, weights)
    labels = tasks.build(config.task).num_labels
    which = canonical_json([config.model.family, hashable(known.config_json), labels])
    tokens = max(1, round(work.tokens))
    rows = min(work.batch, max(1, CPU_TOKENS // tokens))
    config_json = _HashableConfig(known.config_json)
    train, step = _seconds(which, config.model.family, config_json, labels, device.dtype, device.threads, weights,
                           tokens, rows, config.eval.batch_size)  # fmt: skip
    if train is None:
        return None
    size = BYTES[str(device.dtype).removeprefix("torch.")]
    return Speed(rate=4 * weights / train, bandwidth=weights * size / step if step else float("inf"), bytes=size)


class _HashableConfig(dict[str, Any]):
    """A config.json that can be an argument of a cached call; the argument `which` distinguishes two of them."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@lru_cache(maxsize=64)
def _seconds(
    which: str, family: str, config_json: Mapping[str, Any], labels: int | None, dtype: torch.dtype, threads: int,
    weights: int, tokens: int, rows: int, batch: int,
) -> tuple[float | None, float | None]:  # fmt: skip
    """(seconds per training token, seconds per generation step of a batch; None if the family does not generate).

    Both are None if the timed part does not fit in memory.
    """
    layers = config_json["num_hidden_layers"]
    depths = [layers] if weights <= WHOLE or layers < 3 else [1, 2]
    found = []
    for depth in depths:
        model = without_weights(family, config_json, dtype, labels, depth).requires_grad_(False)
        needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        if 2 * needed > psutil.virtual_memory().available:
            return None, None
        found.append(_timed(_filled(model), family, dtype, weights * depth / layers, tokens, rows, batch))
        del model
    if len(found) == 1:
        return found[0]
    (one, first), (two, second) = found
    train = one + max(0.0, two - one) * (layers - 1)
    return train, None if first is None or second is None else first + max(0.0, second - first) * (layers - 1)


def _filled(model: nn.Module) -> nn.Module:
    """Allocate the model's tensors and fill them with constants that are fast to compute with."""
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    return model


def _timed(
    model: Any, family: str, dtype: torch.dtype, weights: float, tokens: int, rows: int, batch: int
) -> tuple[float, float | None]:
    """(seconds per token of forward and backward, seconds of a forward pass of one token for each row of a batch)."""
    limit = max(16, int(OPERATIONS / (4 * weights)))
    rows = max(1, min(rows, limit // tokens))
    length = min(tokens, limit)

    def train() -> None:
        given = _inputs(model, family, dtype, rows, length, gradient=True)
        model(**given).logits.float().sum().backward()

    def step() -> None:
        with torch.no_grad():
            model(**_inputs(model, family, dtype, batch, 1, gradient=False), use_cache=False)

    one = _fastest(train) / (rows * (tokens if family == "vision" else length))
    return one, _fastest(step) if family == "decoder" else None


def _inputs(model: Any, family: str, dtype: torch.dtype, rows: int, length: int, gradient: bool) -> dict[str, Any]:
    model_config = model.config
    if family == "vision":
        shape: tuple[int, ...] = (rows, model_config.num_channels, model_config.image_size, model_config.image_size)
        return {"pixel_values": torch.full(shape, 0.01, dtype=dtype, requires_grad=gradient)}
    shape = (rows, length, model_config.hidden_size)
    return {"inputs_embeds": torch.full(shape, 0.01, dtype=dtype, requires_grad=gradient)}


def _fastest(work: Callable[[], None]) -> float:
    """Seconds of the fastest of REPEATS calls, after one call that is not timed."""
    work()
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)
