"""Dropout masks: a function of (seed, step), other ones at every step and for every layer, also inside the base."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from sdsbench.methods.dropout_masks import DropoutMasks, keep_mask
from sdsbench.training.dropout import Dropout


class Base(nn.Module):
    """A base model that drops half of its input, or (as Llama does) says so in its configuration alone."""

    def __init__(self, p: float = 0.5, **config: float) -> None:
        super().__init__()
        self.config = type("Config", (), config)()
        self.drop = nn.Dropout(p)
        self.weight = nn.Parameter(torch.ones(1))  # says on which device the model is


def adapter_draw(dropout: Dropout, step: int) -> list[int]:
    """The seeds of two layers' masks in one step."""
    with dropout.of_step(step):
        return [dropout.masks.of_layer(name, 1)[0] for name in ("q_proj", "v_proj")]


def base_mask(model: Base, dropout: Dropout, step: int) -> list[float]:
    with dropout.of_step(step):
        return model.drop(torch.ones(64, device=model.weight.device)).tolist()


def test_adapters_draw_other_masks_in_every_step_layer_and_run() -> None:
    draws = [number for seed in (0, 1) for step in range(1, 51) for number in adapter_draw(Dropout(Base(), seed), step)]
    assert len(set(draws)) == len(draws)


def test_the_base_draws_other_masks_in_every_step_and_run(device: str) -> None:
    model = Base().to(device)
    masks = [tuple(base_mask(model, Dropout(model, seed), step)) for seed in (0, 1) for step in range(1, 21)]
    assert len(set(masks)) == len(masks)


def test_a_step_has_its_masks_whatever_came_before(device: str) -> None:
    """So a resumed run draws what the uninterrupted one does, and an evaluation in between changes nothing."""
    model = Base().to(device)
    through = Dropout(model, 3)
    for step in range(1, 5):
        adapters, base = adapter_draw(through, step), base_mask(model, through, step)
        torch.rand(step, device=device)
    assert (adapter_draw(Dropout(model, 3), 4), base_mask(model, Dropout(model, 3), 4)) == (adapters, base)


def test_the_global_generator_is_as_it_was(device: str) -> None:
    state = torch.random.get_rng_state if device == "cpu" else torch.cuda.get_rng_state
    model, before = Base().to(device), state()
    base_mask(model, Dropout(model, 0), 1)
    assert torch.equal(state(), before)


def global_draws(dropout: Dropout, step: int) -> tuple[float, float, float]:
    with dropout.of_step(step):
        return torch.rand(()).item(), float(np.random.rand()), random.random()


def test_layers_of_plugins_may_draw_from_any_global_generator() -> None:
    random.seed(3), np.random.seed(3)
    outside = float(np.random.rand()), random.random()
    random.seed(3), np.random.seed(3)
    first = global_draws(Dropout(Base(), 0), 4)
    assert outside == (float(np.random.rand()), random.random()), "numpy's and Python's are as they were, too"
    assert global_draws(Dropout(Base(), 0), 4) == first, "wherever the generators were before"
    for other in (global_draws(Dropout(Base(), 0), 5), global_draws(Dropout(Base(), 1), 4)):
        assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("model", "drops"),
    [
        (Base(0.1), True),
        (Base(0.0), False),
        (Base(0.0, attention_dropout=0.1), True),
        (Base(0.0, attention_probs_dropout_prob=0.1), True),
        (Base(0.0, attention_dropout=0.0), False),
    ],
)
def test_a_base_that_drops_is_recognised(model: Base, drops: bool) -> None:
    assert Dropout(model, 0).base_drops is drops


def test_every_dropout_call_of_a_pass_has_a_place_of_its_own() -> None:
    """The calls of the next pass have the same places, since they continue the same masks."""
    masks = DropoutMasks()
    masks.begin_step(1)
    seen = []
    for _ in range(2):
        masks.begin_pass(1, 5)
        seen.append([masks.of_layer(masks.next_place(), 5) for _ in range(3)])
    assert len({seed for seed, _ in seen[0]}) == 3
    assert [seed for seed, _ in seen[0]] == [seed for seed, _ in seen[1]]
    assert ({row for _, row in seen[0]}, {row for _, row in seen[1]}) == ({0}, {5})


def test_a_mask_on_the_meta_device_has_its_shape() -> None:
    mask = keep_mask(torch.empty(300, 2, device="meta"), 0.5, 1, 10)
    assert mask.is_meta and mask.shape == (300, 2)
