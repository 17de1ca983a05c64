"""The probe of a run measures optimizer steps without changing the run's results by a single bit.

A measurement costs one forward and backward pass over `probe.rows` fixed training rows. It takes place between the
optimizer's update and the method's `after_step`: the old parameter values are restored, each layer is measured in the
backward pass as soon as its gradient G is complete, then the new values are restored. So only one dense G exists at a
time, however deep the model is. Full fine-tuning also needs copies of W0 and of the old weights in main memory, and
methods with moments of their own need a copy of these from before the step: the direction for G continues from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdsbench.core import samples
from sdsbench.training.loop import Training
from sdsbench.training.probes.layers import ProbedLayer, probed_layers
from sdsbench.training.probes.measurement import measure
from sdsbench.training.probes.probe_config import ProbeConfig
from sdsbench.training.state import TrainState

Write = Callable[..., None]
FOLDER = "probes"


def path_of(folder: Path, step: int) -> Path:
    """probes/<step>.jsonl.zst in the run's folder: one JSON line for each layer."""
    return folder / FOLDER / f"{step:06d}.jsonl.zst"


class Probe:
    """Measures every layer at the optimizer steps 1, probe.every, 2 * probe.every, ...

    Construct it before a checkpoint is loaded, since full fine-tuning takes the weights at construction as W0.
    """

    def __init__(self, config: ProbeConfig, model: nn.Module, layers: Mapping[str, Any], method: Any) -> None:
        assert config.every is not None
        self.every, self.rows = config.every, config.rows
        self.layers = probed_layers(model, layers, method)

    def watch(self, training: Training, state: TrainState, folder: Path, write: Write) -> Watch:
        """The observer of one training run: writes rows to `folder`, means over layers to `write` (kind "probe")."""
        return Watch(self, training, state, folder, write)


class Watch:
    """The Observer (training/loop.py) of a run with probes."""

    def __init__(self, probe: Probe, training: Training, state: TrainState, folder: Path, write: Write) -> None:
        self.probe, self.training, self.state = probe, training, state
        self.folder, self.write = folder, write

    def observe(self, step: int, update: Callable[[], None]) -> float:
        """Call `update`, the method's and the optimizer's part of the step; return the seconds spent on measuring."""
        if step != 1 and step % self.probe.every:
            update()
            return 0.0
        started = time.perf_counter()
        before = {name: layer.snapshot() for name, layer in self.probe.layers.items()}
        moments = {name: layer.training_state() for name, layer in self.probe.layers.items()}
        started_update = time.perf_counter()
        update()
        updated = time.perf_counter()
        rows = self._measure_layers(step, before, moments)
        self._write_rows(step, rows, seconds := time.perf_counter() - updated + started_update - started)
        return seconds

    def _measure_layers(
        self, step: int, before: Mapping[str, dict[str, Tensor]], moments: Mapping[str, dict[str, Tensor]]
    ) -> list[dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        after = {name: layer.snapshot() for name, layer in self.probe.layers.items()}

        def arrived(name: str, gradient_mn: Tensor, factor_gradients: Mapping[str, Tensor]) -> None:
            layer = self.probe.layers[name]
            with torch.no_grad():
                view = layer.view(before[name], after[name], gradient_mn, factor_gradients, moments[name], step)
                rows[name] = measure(view)

        with _values(self.probe.layers, before, after), _evaluating(self.training.model):
            handles = [handle for layer in self.probe.layers.values() for handle in layer.listen(arrived)]
            try:
                self._backward()
            finally:
                for handle in handles:
                    handle.remove()
        return [{"layer": name, **rows[name]} for name in self.probe.layers if name in rows]

    def _backward(self) -> None:
        """Backward pass of the mean target loss over the probe rows, the first `probe.rows` training examples."""
        examples = self.training.examples[: self.probe.rows]
        loss = self.training.objective.loss(self.training.model, examples, self.training.device)
        (loss / sum(example.targets for example in examples)).backward()

    def _write_rows(self, step: int, rows: Sequence[dict[str, Any]], seconds: float) -> None:
        samples.write(path_of(self.folder, step), rows)
        self.write("probe", step, **means(rows), seconds=seconds)


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of every number over those layers that have it."""
    keys = sorted({key for row in rows for key, value in row.items() if isinstance(value, int | float)})
    found = {key: [row[key] for row in rows if isinstance(row.get(key), int | float)] for key in keys}
    return {key: sum(values) / len(values) for key, values in found.items()}


@contextmanager
def _values(layers: Mapping[str, ProbedLayer], before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[None]:
    """While active, parameters hold the values from before the step; on exit, those from after it."""
    for name, layer in layers.items():
        layer.put(before[name])
    try:
        yield
    finally:
        for name, layer in layers.items():
            layer.put(after[name])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """While active, the model is in eval mode: no dropout, so no generator advances and G is free of its noise."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was
