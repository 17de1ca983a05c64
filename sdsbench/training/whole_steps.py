"""Find out whether a step's numbers depend on how it is split into passes; if so, every step must be a single pass.

The split is chosen by the device's memory (passes.py), so it must not change a run's loss or gradient. That holds for
this package's layers: they treat each token by itself, and their dropout masks belong to the rows of the step
(methods/dropout_masks.py). It does not hold in two cases:

- Batches are padded and something drops. A mask row belongs to a position of the padded batch, and another pass is
  padded to another length.
- A method inserts layers of another library that draw random numbers in a way of their own, or that mix the tokens of
  different examples. Which layers do so is measured, once before the first step, rather than listed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

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
    if state.method.wraps_layers() or state.method.trains_base:
        return None
    examples = [training.examples[number] for number in range(min(2, len(training.examples)))]
    with _training_with_noise(training.model), torch.no_grad():
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
    return len(losses) > 1


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
def _training_with_noise(model: nn.Module) -> Iterator[None]:
    """While active, the model is in training mode and its trained tensors have noise; on exit all is as before."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before, trains = [parameter.detach().clone() for parameter in parameters], model.training
    generator = torch.Generator().manual_seed(0)
    model.train()
    try:
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator) * NOISE
            parameter.data.add_(noise.to(parameter))
        yield
    finally:
        for parameter, values in zip(parameters, before, strict=True):
            parameter.data.copy_(values)
        model.train(trains)
