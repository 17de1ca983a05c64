"""Time and memory of one optimizer step, by component."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.saved_bytes import PeakBytes, saved_bytes
from sdsbench.training.state import TrainState

PARTS = {  # names of autograd nodes and operators -> part of the forward and backward pass
    "_LowRankLinear": "adapted layers",
    "_LinearCrossEntropy": "head and cross-entropy",
    "aten::_scaled_dot_product": "attention",
    "torch_attn::_varlen_attn": "attention",
}


def time_table(training: Training, state: TrainState, steps: int = 3) -> dict[str, float]:
    """Seconds of each part of a step: the median over `steps`, after one warm-up step.

    torch's profiler splits forward and backward, slowing them slightly; the other parts are timed directly.
    """
    seen: dict[str, list[float]] = {}
    training.model.train()
    for number in range(1 + steps):
        for part, seconds in _one_step(training, state).items():
            if number:
                seen.setdefault(part, []).append(seconds)
    return {part: sorted(values)[len(values) // 2] for part, values in seen.items()}


def _one_step(training: Training, state: TrainState) -> dict[str, float]:
    device, config, step = training.device, training.config, state.step + 1
    parts = training.split(training.batch(step))
    _flat(state).zero_grad()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with training.dropout.of_step(step), profile(activities=activities) as profiler:
        whole = _timed(device, lambda: training.backward(parts))
    found = _divided(profiler.events(), whole, device)
    found["clipping"] = _timed(device, lambda: _flat(state).clip(config.clip_norm))
    found["method, before the step"] = _timed(device, lambda: state.method.before_step(state.layers, step, config.lr))
    found["optimizer"] = _timed(device, lambda: _flat(state).step(1.0))
    found["method, after the step"] = _timed(
        device, lambda: state.method.after_step(state.layers, step, training.total_steps, state.optimizer)
    )
    state.step += 1
    return found


def _divided(events: Any, whole: float, device: torch.device) -> dict[str, float]:
    """Seconds of forward and backward by part (PARTS); events of no part are counted as everything else."""
    cuda = device.type == "cuda"
    found = dict.fromkeys(PARTS.values(), 0.0)
    for event in events:
        for name, part in PARTS.items():
            if event.name == f"{name}Backward" or event.name == name or (":" in name and event.name.startswith(name)):
                found[part] += (event.device_time_total if cuda else event.cpu_time_total) / 1e6
    return found | {"everything else": max(0.0, whole - sum(found.values()))}


def memory_table(training: Training, state: TrainState) -> dict[str, int]:
    """Bytes of weights, method and optimizer state, tensors saved for backward, and a step's peak above these."""
    batch = training.batch(state.step + 1)
    held = _method_tensors(state)
    named = {id(p) for p in training.model.parameters() if not p.requires_grad}
    weights = sum(p.numel() * p.element_size() for p in training.model.parameters() if id(p) in named)
    largest = training.split(batch)[0]
    saved = saved_bytes(training.model, lambda: training.objective.loss(training.model, largest, training.device))
    _flat(state).zero_grad()
    with PeakBytes() as peak:
        training.backward(training.split(batch))
    _flat(state).zero_grad()
    return {
        "frozen weights": weights,
        "trained tensors, gradients, optimizer, buffers": held,
        "saved for backward": saved,
        "peak of forward and backward": peak.peak,
    }


def _method_tensors(state: TrainState) -> int:
    tensors: Mapping[str, torch.Tensor] = _flat(state).tensors()
    gradients = sum(flat.numel() * flat.element_size() for flat in _flat(state).flat)
    kept = [*state.frozen_tensors().values(), *(b for layer in state.layers.values() for b in layer.buffers())]
    buffers = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    return sum(t.numel() * t.element_size() for t in tensors.values()) + gradients + buffers


def _flat(state: TrainState) -> FlatOptimizer:
    if not isinstance(state.optimizer, FlatOptimizer):
        advice = "Its update is part of the backward pass: there are no parts to tell apart."
        raise ConfigError([Problem("train.optimizer", "adamw8bit", "adamw, momentum or sgd in a profile", advice)])
    return state.optimizer


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    _synchronize(device)
    started = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
