"""Random numbers of a forward pass: masks and other draws depend only on the run's seed, the step and the layer."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, OPTConfig

from sdsbench.methods.dropout_masks import DropoutMasks, keep_mask
from sdsbench.training.dropout import Dropout
from tests.methods.tiny import tiny_model


class Base(nn.Module):
    """A base model with a dropout layer, or with a dropout rate only in its configuration (as Llama has)."""

    def __init__(self, p: float = 0.5, **config: float) -> None:
        super().__init__()
        self.config = type("Config", (), config)()
        self.drop = nn.Dropout(p)
        self.weight = nn.Parameter(torch.ones(1))  # gives the model's device


def adapter_mask_seeds(dropout: Dropout, step: int) -> list[int]:
    """The seeds of two layers' masks in one step."""
    with dropout.of_step(step):
        return [dropout.masks.of_layer(name, 1)[0] for name in ("q_proj", "v_proj")]


def base_mask(model: Base, dropout: Dropout, step: int) -> list[float]:
    with dropout.of_step(step):
        return model.drop(torch.ones(64, device=model.weight.device)).tolist()


def test_adapter_masks_differ_between_steps_layers_and_runs() -> None:
    draws = [
        number for seed in (0, 1) for step in range(1, 51) for number in adapter_mask_seeds(Dropout(Base(), seed), step)
    ]
    assert len(set(draws)) == len(draws)


def test_base_masks_differ_between_steps_and_runs(device: str) -> None:
    model = Base().to(device)
    masks = [tuple(base_mask(model, Dropout(model, seed), step)) for seed in (0, 1) for step in range(1, 21)]
    assert len(set(masks)) == len(masks)


def test_masks_of_a_step_do_not_depend_on_earlier_draws(device: str) -> None:
    """So a resumed run has the masks of an uninterrupted one, and an evaluation in between does not change them."""
    model = Base().to(device)
    through = Dropout(model, 3)
    for step in range(1, 5):
        adapters, base = adapter_mask_seeds(through, step), base_mask(model, through, step)
        torch.rand(step, device=device)
    assert (adapter_mask_seeds(Dropout(model, 3), 4), base_mask(model, Dropout(model, 3), 4)) == (adapters, base)


def test_global_generator_is_restored(device: str) -> None:
    state = torch.random.get_rng_state if device == "cpu" else torch.cuda.get_rng_state
    model, before = Base().to(device), state()
    base_mask(model, Dropout(model, 0), 1)
    assert torch.equal(state(), before)


def draws(dropout: Dropout, step: int) -> tuple[object, ...]:
    with dropout.of_step(step):
        mask = keep_mask(torch.ones(64), 0.5, *dropout.masks.of_layer("layer", 64)).tolist()
        return torch.rand(()).item(), float(np.random.rand()), random.random(), mask


@pytest.mark.parametrize("make_model", [lambda: tiny_model("decoder"), Base], ids=["decoder", "base"])
def test_draws_from_global_generators_follow_seed_and_step_and_restore_them(
    make_model: Callable[[], nn.Module],
) -> None:
    """Layers of plugins may draw from any global generator: torch's, numpy's or Python's."""
    model = make_model()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    outside = torch.rand(()).item(), float(np.random.rand()), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    first = draws(Dropout(model, 0), 4)
    assert outside == (torch.rand(()).item(), float(np.random.rand()), random.random())
    assert draws(Dropout(model, 0), 4) == first, "the generators' earlier states do not matter"
    for other in (draws(Dropout(model, 0), 5), draws(Dropout(model, 1), 4)):
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
def test_base_with_dropout_is_recognised(model: Base, drops: bool) -> None:
    assert Dropout(model, 0).base_drops is drops


def opt(**rates: float) -> nn.Module:
    """A random OPT in training mode. Its layers call functional.dropout, and none of its modules is an nn.Dropout."""
    shape = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 24, "num_hidden_layers": 1}
    config = OPTConfig(vocab_size=40, num_attention_heads=2, max_position_embeddings=16, **shape, **rates)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).train()


def test_dropout_without_a_module_of_its_own_is_recognised_and_does_not_depend_on_the_passes() -> None:
    model, ids = opt(dropout=0.4), torch.arange(24).view(4, 6)
    assert not Dropout(opt(dropout=0.0), 0).base_drops
    dropout, logits = Dropout(model, 0), []
    assert dropout.base_drops
    for parts in ((4,), (1, 3)):
        found = []
        with dropout.of_step(1), torch.no_grad():
            for part in ids.split(parts):
                dropout.masks.begin_pass(len(part), part.numel())
                found.append(model(part).logits)
        logits.append(torch.cat(found))
    torch.testing.assert_close(*logits)
    assert not torch.allclose(logits[0], model.eval()(ids).logits, atol=1e-3)


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


def test_a_mask_does_not_depend_on_the_layout_in_memory(device: str) -> None:
    """The gradients that a layer gets may be transposed, and the backward pass draws the mask of the forward pass."""
    plain, turned = torch.ones(600, 8, device=device), torch.ones(8, 600, device=device).t()
    masks = [keep_mask(like, 0.5, 1, 10) for like in (plain, turned)]
    assert torch.equal(*masks)


def test_a_mask_on_the_meta_device_has_its_shape() -> None:
    mask = keep_mask(torch.empty(300, 2, device="meta"), 0.5, 1, 10)
    assert mask.is_meta and mask.shape == (300, 2)
