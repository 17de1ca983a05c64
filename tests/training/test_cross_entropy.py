"""Chunked linear cross-entropy compared with cross-entropy of all logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from sdsbench.training.cross_entropy import CHUNK, linear_cross_entropy
from sdsbench.training.saved_bytes import SavedBytes


def inputs(tokens: int, vocabulary: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    h_td = torch.randn(tokens, 16, generator=generator, requires_grad=True)
    weight_vd = torch.randn(vocabulary, 16, generator=generator, requires_grad=True)
    return h_td, weight_vd, torch.randint(0, vocabulary, (tokens,), generator=generator)


@pytest.mark.parametrize("softcap", (None, 3.0))
@pytest.mark.parametrize("tokens", (1, CHUNK, 2 * CHUNK + 7))
def test_chunked_loss_and_gradients_equal_the_plain_ones(tokens: int, softcap: float | None) -> None:
    h_td, weight_vd, labels_t = inputs(tokens)
    logits = h_td @ weight_vd.t()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    expected = cross_entropy(logits, labels_t, reduction="sum")
    expected_gradients = torch.autograd.grad(0.3 * expected, (h_td, weight_vd))
    found = linear_cross_entropy(h_td, weight_vd, labels_t, softcap)
    gradients = torch.autograd.grad(0.3 * found, (h_td, weight_vd))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_chunked_loss_keeps_no_logits() -> None:
    h_td, weight_vd, labels_t = inputs(300, vocabulary=5000)
    weight_vd.requires_grad_(False)
    counter = SavedBytes([h_td, weight_vd, labels_t])
    with counter.counting():
        linear_cross_entropy(h_td, weight_vd, labels_t)
    assert counter.total == h_td.numel() * 4  # only the gradient of h is kept; the logits are 6 MB


def test_a_gradient_in_bf16_is_rounded_once() -> None:
    """A step divides the loss by its targets; 1 / 259 alone, rounded to bf16, is 0.2 % off."""
    h_td, weight_vd, labels_t = inputs(40)
    h_td, weight_vd = h_td.detach().bfloat16().requires_grad_(), weight_vd.detach().bfloat16()
    (summed,) = torch.autograd.grad(linear_cross_entropy(h_td, weight_vd, labels_t), h_td)
    (mean,) = torch.autograd.grad(linear_cross_entropy(h_td, weight_vd, labels_t) / 259, h_td)
    assert torch.equal(mean, (summed.float() / 259).bfloat16())


def test_bf16_is_close_to_fp32() -> None:
    h_td, weight_vd, labels_t = (t.detach() for t in inputs(40))
    low = linear_cross_entropy(h_td.bfloat16(), weight_vd.bfloat16(), labels_t)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(linear_cross_entropy(h_td, weight_vd, labels_t).item(), rel=2e-2)
