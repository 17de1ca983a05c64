"""The adapted layer against plain autograd, and the tensors that it saves for the backward pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sdsbench.methods.dropout_masks import DropoutMasks
from sdsbench.methods.layer import AdaptedLinear
from sdsbench.training.grouped_linear import GroupedLinear, Layout


def make_layer(m: int, n: int, dropout: float = 0.0, bias: bool = True, dtype: torch.dtype = torch.float64):
    torch.manual_seed(1)
    linear = nn.Linear(n, m, bias=bias, dtype=dtype)
    layer = AdaptedLinear(linear, SimpleNamespace(config=SimpleNamespace(dropout=dropout), name="test"), "layer")
    return layer.train()


def random_branches(
    m: int, n: int, widths: list[int], dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(m, k, generator=generator).to(dtype), torch.randn(k, n, generator=generator).to(dtype))
        for k in widths
    ]


def dense_reference(layer, x, branches, scale, rows=None, mask=None):
    """The layer's output by separate products, which autograd differentiates."""
    y = x @ layer.weight.t()
    dropped = x if mask is None else x * mask
    for up, down in branches:
        y = y + scale * dropped @ down.to(x.dtype).t() @ up.to(x.dtype).t()
    if rows is not None:
        y = y * (rows[0] / rows[1]).to(x.dtype)
    return y if layer.bias is None else y + layer.bias


@settings(max_examples=25)
@given(
    m=st.integers(1, 7),
    n=st.integers(1, 7),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    trained=st.integers(0, 63),
    needs_x=st.booleans(),
    bias=st.booleans(),
    rows=st.booleans(),
)
def test_output_and_gradients_equal_plain_autograd(m, n, widths, trained, needs_x, bias, rows) -> None:
    layer, branches = make_layer(m, n, bias=bias), random_branches(m, n, widths)
    flat = [block for branch in branches for block in branch]
    for index, block in enumerate(flat):
        block.requires_grad_(bool(trained >> index & 1))
    x = torch.randn(5, n, dtype=torch.float64, requires_grad=needs_x)
    magnitude, norm = (torch.rand(m, dtype=torch.float64).add_(0.5) for _ in range(2))
    magnitude.requires_grad_(True)
    row_scale = (magnitude, norm) if rows else None
    leaves = [leaf for leaf in (x, *([magnitude] if rows else []), *flat) if leaf.requires_grad]
    found = layer.low_rank_forward(x, branches, 0.7, row_scale)
    expected = dense_reference(layer, x, branches, 0.7, row_scale)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    if not leaves:
        assert not found.requires_grad
        return
    g = torch.randn_like(found)
    for found_gradient, expected_gradient in zip(
        torch.autograd.grad(found, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True
    ):
        torch.testing.assert_close(found_gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_leading_dimensions_are_kept() -> None:
    layer = make_layer(3, 4)
    branches = random_branches(3, 4, [2])
    layer.method.forward = lambda adapted, x_tn: adapted.low_rank_forward(x_tn, branches, 1.0)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense_reference(layer, x, branches, 1.0))


def test_magnitude_of_zero_has_gradient_zero() -> None:
    layer = make_layer(3, 4, bias=False)
    layer.weight.data[1] = 0
    branches = [(torch.zeros(3, 2), torch.ones(2, 4))]
    magnitude = torch.tensor([1.0, 0.0, 2.0], requires_grad=True)
    rows = (magnitude, torch.ones(3))
    layer.low_rank_forward(torch.randn(5, 4, dtype=torch.float64), branches, 1.0, rows).sum().backward()
    assert magnitude.grad[1] == 0 and magnitude.grad.isfinite().all()


@pytest.mark.parametrize("grouped", (False, True), ids=("alone", "side by side"))
def test_a_small_change_of_a_magnitude_has_its_effect_in_bf16(grouped: bool) -> None:
    """Magnitudes 0.3 % above the norms, of which bf16 rounds the quotient to 1: outputs and gradients grow by 0.3 %.

    On average: a single output moves by whole steps of bf16.
    """
    layer, branches = make_layer(32, 32, bias=False, dtype=torch.bfloat16), random_branches(32, 32, [2])
    norm_m = torch.ones(32)
    method = SimpleNamespace(config=SimpleNamespace(dropout=0.0), name="test")
    method.forward = lambda layer, x_tn: layer.low_rank_forward(x_tn, branches, 0.5, (layer.magnitude, norm_m))
    layer.method = method
    measured = []
    for factor in (1.0, 1.003):
        layer.register_buffer("magnitude", factor * norm_m)
        x, g = (torch.randn(512, 32, generator=torch.Generator().manual_seed(k)).bfloat16() for k in (0, 1))
        x.requires_grad_()
        y = (GroupedLinear([layer], Layout([512])) if grouped else layer)(x)
        (gradient,) = torch.autograd.grad(y, x, g)
        measured.append((y.detach().float(), gradient.float()))
    for before, after in zip(*measured, strict=True):
        assert float((before * after).sum() / before.square().sum()) == pytest.approx(1.003, abs=5e-4)


def test_dropout_acts_on_the_update_only_and_repeats_its_mask_within_a_step() -> None:
    layer, branches = make_layer(6, 50, dropout=0.3), random_branches(6, 50, [2])
    branches[0][1].requires_grad_(True)
    x = torch.randn(40, 50, dtype=torch.float64, requires_grad=True)
    layer.dropout_masks = DropoutMasks(4)
    mask = layer.call(1.0, 40, None).dropped(torch.ones_like(x)).detach()
    assert set(mask.unique().tolist()) == {0.0, 1 / 0.7}
    assert (mask == 0).double().mean() == pytest.approx(0.3, abs=0.03)
    found = layer.low_rank_forward(x, branches, 0.5)
    expected = dense_reference(layer, x, branches, 0.5, mask=mask)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(found)
    for found_gradient, expected_gradient in zip(
        torch.autograd.grad(found, (x, branches[0][1]), g),
        torch.autograd.grad(expected, (x, branches[0][1]), g),
        strict=True,
    ):
        torch.testing.assert_close(found_gradient, expected_gradient, rtol=1e-5, atol=1e-5)
    layer.dropout_masks.begin_step(5)
    assert not torch.equal(layer.low_rank_forward(x, branches, 0.5), found), "the next step draws another mask"
    torch.testing.assert_close(
        layer.eval().low_rank_forward(x, branches, 0.5), dense_reference(layer, x, branches, 0.5)
    )


def test_dropout_without_masks_is_refused() -> None:
    layer = make_layer(3, 4, dropout=0.1)
    with pytest.raises(RuntimeError, match="dropout_masks"):
        layer.low_rank_forward(torch.randn(2, 4, dtype=torch.float64), random_branches(3, 4, [1]), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [[2], [2, 3]])
def test_only_input_and_factors_are_saved_for_backward(ranks: list[int], dtype: torch.dtype) -> None:
    """x is saved once, in its own dtype, and factors that were joined or cast once each; all other saved tensors exist
    anyway.
    """
    layer, branches = make_layer(6, 8, dtype=dtype), random_branches(6, 8, ranks)
    for block in branches[0]:
        block.requires_grad_(True)
    blocks = [block for branch in branches for block in branch]
    existing = {tensor.untyped_storage().data_ptr() for tensor in (layer.weight, *blocks)}
    saved: list[Tensor] = []
    x = torch.randn(10, 8, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = layer.low_rank_forward(x, branches, 1.0)
    new = [tensor for tensor in saved if tensor.untyped_storage().data_ptr() not in existing]
    joined = [] if len(ranks) == 1 and dtype == torch.float32 else [(6, sum(ranks)), (sum(ranks), 8)]
    assert new[0].data_ptr() == x.data_ptr()
    assert [(tuple(tensor.shape), tensor.dtype) for tensor in new[1:]] == [(shape, dtype) for shape in joined]
    y.sum().backward()
    assert y.dtype == dtype and x.grad.dtype == dtype
    assert all(block.grad.dtype == torch.float32 for block in branches[0])


def test_gradient_sink_receives_the_dense_gradient() -> None:
    layer, branches = make_layer(3, 4, dtype=torch.float32), random_branches(3, 4, [2])
    branches[0][0].requires_grad_(True)
    received: list[Tensor] = []
    layer.gradient_sink = received.append
    x, g = torch.randn(5, 4), torch.randn(5, 3)
    layer.low_rank_forward(x, branches, 1.0).backward(g)
    assert received[0].dtype == torch.float32
    torch.testing.assert_close(received[0], g.t() @ x)


def test_layer_works_on_the_meta_device() -> None:
    with torch.device("meta"):
        layer = AdaptedLinear(
            nn.Linear(4, 3), SimpleNamespace(config=SimpleNamespace(dropout=0.0), name="test"), "layer"
        )
    blocks = [(torch.empty(3, 2, device="meta", requires_grad=True), torch.empty(2, 4, device="meta"))]
    y = layer.low_rank_forward(torch.empty(5, 4, device="meta"), blocks, 1.0)
    y.sum().backward()
    assert y.shape == (5, 3) and blocks[0][0].grad.shape == (3, 2)
