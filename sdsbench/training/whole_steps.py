"""Find out whether a step's numbers depend on how it is split into passes; if so, every step must be a single pass.

The split is chosen by the device's memory (passes.py), so it must not change a run's loss or gradient. That holds for
this package's layers: they treat each token by itself, and their dropout masks belong to the rows of the step
(methods/dropout_masks.py). It does not hold in three cases:

- Batches are padded and something drops. A mask row belongs to a position of the padded batch, and another pass is
  padded to another length.
- A base model with dropout draws random numbers in a way of its own as well: Swin leaves out paths, and attention of
  images drops weights by torch's own masks.
- A method inserts layers of another library that do so, or that mix the tokens of different examples.

Which models and layers draw or mix is measured, once before the first step, rather than listed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sdsbench.methods.global_random import seeded
from sdsbench.training.causal import CausalObjective
from sdsbench.training.loop import Training
from sdsbench.training.state import TrainState

SEEDS = range(8)
"""Seeds of the global generators that are compared; a layer that drops one value in ten shows it in one of them."""
NOISE = 0.05
"""Standard deviation of what is added to the trained tensors meanwhile: most adapters start at zero, where their
layers' draws would change nothing."""


def reason_for_whole_steps(training: Training, state: TrainState) -> str | None:
    """Why every step must be one pass, as half a sentence for the user; None if any split gives the same numbers."""
    if training.objective.padded and _drops(training, state):
        return "padded batches with dropout: masks depend on the padding of a pass"
    examples = [training.examples[number] for number in range(min(2, len(training.examples)))]
    if state.method.wraps_layers() or state.method.trains_base:
        if training.dropout.base_drops:  # no other base draws random numbers
            with _in_training(training.model), torch.no_grad():
                if _draws(training, examples):
                    return "the base model draws random numbers of its own beside its dropout masks"
        return None
    with _in_training(training.model), _with_noise(training.model), torch.no_grad():
        if _draws(training, examples):
            return f"the layers of method={state.method.name} draw random numbers of their own"
        if _mixes(training, examples):
            return f"the layers of method={state.method.name} mix the tokens of different examples"
    return None


def _drops(training: Training, state: TrainState) -> bool:
    """Whether a training step drops anything, in the base model or in adapted layers."""
    return training.dropout.base_drops or bool(getattr(state.method.config, "dropout", 0.0))


def _draws(training: Training, examples: Sequence[Any]) -> bool:
    """Whether a pass reads the global generators: with equal masks, its loss then changes with their seed."""
    losses = set()
    for seed in SEEDS:
        with training.dropout.of_step(1), seeded(seed, training.device):
            training.dropout.masks.begin_pass(len(examples), training.objective.tokens(examples))
            losses.add(training.objective.loss(training.model, examples, training.device).item())
        if len(losses) > 1:
            return True
    return False


def _mixes(training: Training, examples: Sequence[Any]) -> bool:
    """Whether an example's loss changes with the other tokens of its pass. Measured for text only: two sequences.

    The comparison is exact: the passes have equal shapes, so equal rows are computed in the same way.
    """
    objective = training.objective
    if len(examples) < 2 or not isinstance(objective, CausalObjective):
        return False
    first, second = examples
    losses = []
    for other in (second, dataclasses.replace(second, ids=second.ids[::-1])):
        with training.dropout.of_step(1):
            training.dropout.masks.begin_pass(2, objective.tokens([first, other]))
            losses.append(objective.losses(training.model, [[first], [other]], training.device)[0])
    return not torch.equal(*losses)


@contextmanager
def _in_training(model: nn.Module) -> Iterator[None]:
    """While active, the model is in training mode."""
    trains = model.training
    model.train()
    try:
        yield
    finally:
        model.train(trains)


@contextmanager
def _with_noise(model: nn.Module) -> Iterator[None]:
    """While active, the model's trained tensors have noise; on exit they are as before."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        add_noise(parameters, NOISE, torch.Generator().manual_seed(0))
        yield
    finally:
        for parameter, values in zip(parameters, before, strict=True):
            parameter.data.copy_(values)


@torch.no_grad()
def add_noise(parameters: Iterable[Tensor], size: float, generator: torch.Generator) -> None:
    """Add normal noise of standard deviation `size` to each tensor, in place."""
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.add_(noise.to(parameter.device), alpha=size)
