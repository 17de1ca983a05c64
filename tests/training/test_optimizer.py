"""The flat optimizer: updates equal torch's for every tensor; low-precision weights have fp32 master copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdsbench.training.optimizer import FlatOptimizer, Group
from sdsbench.training.training_config import TrainConfig

SHAPES = ((3, 4), (5,), (2, 2))
REFERENCES = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, weight_decay=0.1),
}


def parameters(device: str) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in SHAPES]


def flat_optimizer(mine: list[nn.Parameter], rule: str = "adamw") -> FlatOptimizer:
    group = Group("adapter", mine, 1e-2, 0.1, rule)
    return FlatOptimizer([group], TrainConfig(lr=1e-2, betas=[0.9, 0.99]))


def backward(values: list[nn.Parameter], step: int) -> None:
    sum((value.float() * (1 + step + i) ** 2).sin().sum() for i, value in enumerate(values)).backward()


@pytest.mark.parametrize("rule", REFERENCES)
def test_updates_with_clipping_and_schedule_equal_torchs(rule: str, device: str) -> None:
    mine, theirs = parameters(device), parameters(device)
    optimizer, reference = flat_optimizer(mine, rule), REFERENCES[rule](theirs)
    for step in range(5):
        optimizer.zero_grad()
        reference.zero_grad()
        backward(mine, step)
        backward(theirs, step)
        norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        assert optimizer.clip(0.5) == pytest.approx(float(norm), rel=1e-6)
        reference.param_groups[0]["lr"] = 1e-2 * 0.5**step
        optimizer.step(0.5**step)
        reference.step()
        for left, right in zip(mine, theirs, strict=True):
            assert torch.allclose(left, right, rtol=1e-6, atol=1e-7)


def test_bf16_weights_have_fp32_master_copies(device: str) -> None:
    """Updates far below bf16's resolution add up in the master copies."""
    mine = [nn.Parameter(torch.ones(4, dtype=torch.bfloat16, device=device))]
    optimizer = FlatOptimizer([Group("weights", mine, 1e-4, 0.0, "sgd")], TrainConfig(lr=1e-4))
    for _ in range(100):
        optimizer.zero_grad()
        mine[0].sum().backward()
        optimizer.step(1.0)
    assert optimizer.flat[0].data.tolist() == pytest.approx([0.99] * 4, rel=1e-5)
    assert mine[0].dtype == torch.bfloat16 and mine[0].detach()[0] < 0.995


def test_state_loaded_from_tensors_gives_the_same_update(device: str) -> None:
    mine, again = parameters(device), parameters(device)
    first, second = flat_optimizer(mine), flat_optimizer(again)
    for step in range(3):
        first.zero_grad()
        backward(mine, step)
        first.step(1.0)
    second.load_tensors({key: value.clone() for key, value in first.tensors().items()})
    for optimizer, values in ((first, mine), (second, again)):
        optimizer.zero_grad()
        backward(values, 3)
        optimizer.step(1.0)
    assert all(torch.equal(left, right) for left, right in zip(mine, again, strict=True))


def test_clear_state_deletes_the_moments(device: str) -> None:
    mine = parameters(device)
    optimizer = flat_optimizer(mine)
    backward(mine, 0)
    optimizer.step(1.0)
    assert any(key.startswith("state") for key in optimizer.tensors())
    optimizer.clear_state()
    assert not any(key.startswith("state") for key in optimizer.tensors())


def test_clear_state_keeps_the_heads_moments_unless_requested() -> None:
    adapter, head = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    pairs = (("adapter", adapter), ("head", head))
    optimizer = FlatOptimizer([Group(name, [values], 1e-2, 0.0, "adamw") for name, values in pairs], TrainConfig())
    (adapter.sum() + head.sum()).backward()
    optimizer.step(1.0)
    optimizer.clear_state()
    assert {key.split(".")[1] for key in optimizer.tensors() if key.startswith("state")} == {"1"}, "the head's group"
    optimizer.clear_state(head=True)
    assert not any(key.startswith("state") for key in optimizer.tensors())


def test_a_checkpoint_restores_each_group_its_own_state_and_nothing_else() -> None:
    """A key of another group would be written back at the next checkpoint, which would grow at every resumption."""

    def two_groups() -> tuple[FlatOptimizer, list[nn.Parameter]]:
        values = parameters("cpu")
        groups = [Group("adapter", values[:2], 1e-2, 0.1, "adamw"), Group("head", values[2:], 1e-2, 0.1, "adamw")]
        return FlatOptimizer(groups, TrainConfig()), values

    (first, values), (second, _) = two_groups(), two_groups()
    backward(values, 0)
    first.step(1.0)
    second.load_tensors(first.tensors())
    assert list(second.tensors()) == list(first.tensors())
    assert all(torch.equal(value, second.tensors()[key]) for key, value in first.tensors().items())


def test_a_group_without_tensors_is_left_out() -> None:
    values = parameters("cpu")
    groups = [Group("adapter", values, 1e-2, 0.0, "adamw"), Group("head", [], 1e-2, 0.0, "adamw")]
    optimizer = FlatOptimizer(groups, TrainConfig())
    assert [group.name for group in optimizer.groups] == ["adapter"] and len(optimizer.flat) == 1


def test_a_group_may_train_in_16_bits() -> None:
    """Masters, gradients and moments have the group's dtype; the fused kernel, which rounds once, is not used."""
    mine = [nn.Parameter(torch.ones(4))]
    optimizer = FlatOptimizer([Group("adapter", mine, 1e-2, 0.0, "adamw", torch.bfloat16)], TrainConfig())
    mine[0].sum().backward()
    optimizer.step(1.0)
    moments = [value for key, value in optimizer.tensors().items() if "exp_avg" in key]
    assert {tensor.dtype for tensor in (optimizer.flat[0], optimizer.flat[0].grad, *moments)} == {torch.bfloat16}
    assert optimizer.optimizers[0].defaults["fused"] is False
    assert mine[0].dtype == torch.float32 and mine[0][0] < 1
