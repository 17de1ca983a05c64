"""train.optimizer=adamw8bit: close to fp32 AdamW, unbiased rounding, one gradient at a time, bitwise resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sdsbench.core.errors import ConfigError, TrainingFailed, Unavailable
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.prepare import ready_to_train
from sdsbench.training import checkpoint, in_backward
from sdsbench.training.in_backward import InBackwardAdamW
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer, Group
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig

RUN = [
    "method=full_ft", "model=micro", "task=gsm8k", "data.source=embedded", "train.batch_size=4", "train.max_steps=30",
    "train.lr=1e-3", "train.warmup_ratio=0", "threads=1", "dtype=bfloat16",
]  # fmt: skip
EIGHT_BIT = [*RUN, "train.optimizer=adamw8bit"]


@pytest.fixture
def torchao() -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: make test-full-ft")


def ready(overrides: list[str]) -> tuple[Training, TrainState]:
    training, state = ready_to_train(compose_run(overrides))
    training.model.train()
    return training, state


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()}


def step_towards_minimum(
    values: nn.Parameter, optimizer: InBackwardAdamW, step: int, clip: float | None = None
) -> float:
    def backward(scale: float) -> float:
        loss = (values.float() * (1 + step)).sin().sum()
        (loss * scale).backward()
        return float(loss.detach())

    return optimizer.step(backward, step, 1.0, clip)[1]


@pytest.mark.parametrize("clip", (None, 0.5))
@pytest.mark.parametrize("size", (64, 8192))  # sizes with an fp32 master copy, and with 8-bit moments
def test_updates_are_close_to_torchs_adamw(torchao: None, size: int, clip: float | None, device: str) -> None:
    start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    config = TrainConfig(lr=1e-2, betas=[0.9, 0.99])
    optimizer = InBackwardAdamW([Group("weights", [mine], 1e-2, 0.1, "adamw8bit")], config, 0)
    reference = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(1, 6):
        norm = step_towards_minimum(mine, optimizer, step, clip)
        (theirs * (1 + step)).sin().sum().backward()
        expected = nn.utils.clip_grad_norm_([theirs], clip or 1e9)
        reference.step()
        reference.zero_grad()
        assert norm == pytest.approx(float(expected), rel=1e-3)
        error = float((mine - theirs).abs().max())
        # The first update uses moments before they are rounded to 8 bits; later updates use rounded moments.
        assert error < (1e-6 if step == 1 or size < in_backward.SMALLEST else 1e-2)
    assert mine.grad is None
    assert float((mine - theirs).detach().norm() / (theirs - start).detach().norm()) < 0.05


def test_rounding_is_unbiased(torchao: None, device: str) -> None:
    """20 updates of 1e-4, which rounding to the nearest bf16 would lose (values below 1 are 1/256 apart)."""
    values = nn.Parameter(torch.ones(2**16, dtype=torch.bfloat16, device=device))
    config = TrainConfig(lr=1e-4)
    optimizer = InBackwardAdamW([Group("weights", [values], 1e-4, 0.0, "adamw8bit")], config, 3)

    def backward(scale: float) -> float:
        values.sum().backward()
        return 0.0

    for step in range(1, 21):
        optimizer.step(backward, step, 1.0, None)
    spread = (
        0.002 / 2**16 / 256
    ) ** 0.5  # deviation of the mean: each value is 1 or, with probability 0.512, 1 - 1/256
    assert float(values.detach().float().mean()) == pytest.approx(1 - 0.002, abs=5 * spread)
    assert sorted(set(values.tolist()))[-2:] == [1 - 1 / 256, 1.0]


def test_size_of_pieces_does_not_change_the_result(torchao: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.randn(5 * 4096, generator=torch.Generator().manual_seed(1))
    ends = []
    for size in (in_backward.CHUNK, 8192):
        monkeypatch.setattr(in_backward, "CHUNK", size)
        values = nn.Parameter(start.clone())
        optimizer = InBackwardAdamW([Group("w", [values], 1e-2, 0.0, "adamw8bit")], TrainConfig(lr=1e-2), 0)
        for step in range(1, 4):
            step_towards_minimum(values, optimizer, step)
        ends.append((len(optimizer.trained[0].pieces), values.detach()))
    assert [count for count, _ in ends] == [1, 3]
    assert torch.equal(ends[0][1], ends[1][1])


def test_no_gradient_is_alive_when_another_arrives(torchao: None) -> None:
    training, state = ready(EIGHT_BIT)
    parameters = dict(training.model.named_parameters())
    live: list[set[str]] = []

    def record_live_gradients(_: torch.Tensor) -> None:
        live.append({name for name, parameter in parameters.items() if parameter.grad is not None})

    optimizer = state.optimizer
    assert isinstance(optimizer, InBackwardAdamW)
    update = optimizer._arrived
    assert update is None
    for trained in optimizer.trained:
        trained.parameter.register_hook(record_live_gradients)  # called before .grad is set
    training.step(state)
    assert len(live) == 2 * len(parameters)  # clipping needs a first pass for the norm
    assert not any(live)


def test_losses_on_a_model_are_close_to_fp32_adamws(torchao: None, device: str) -> None:
    tails = []
    for overrides in (RUN, EIGHT_BIT):
        training, state = ready([*overrides, f"device={device}"])
        losses = [training.step(state).loss for _ in range(30)]
        tails.append(sum(losses[-10:]) / 10)
    assert losses[0] > 3
    assert tails[1] == pytest.approx(tails[0], rel=0.01)


def test_run_resumed_from_files_equals_an_uninterrupted_one(torchao: None, tmp_path: Path, device: str) -> None:
    """Bitwise equal on a CPU. On CUDA, where gradients are summed in no fixed order, losses agree to 1 %."""
    words = [*EIGHT_BIT, f"device={device}"]
    ends, losses = [], []
    for stop in (None, 2):
        training, state = ready(words)
        seen = []
        for step in range(5):
            if step == stop:
                checkpoint.save(tmp_path, state, {})
                training, state = ready(words)
                found, _ = checkpoint.newest(tmp_path)
                assert found is not None
                checkpoint.load(found, state)
                torch.manual_seed(99)  # the global generator must not matter
            seen.append(training.step(state).loss)
        losses.append(seen)
        ends.append(state.tensors())
    assert losses[0] == (losses[1] if device == "cpu" else pytest.approx(losses[1], rel=1e-2))
    assert ends[0].keys() == ends[1].keys()
    assert any(tensor.dtype == torch.uint8 for tensor in ends[0].values())
    if device == "cpu":
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_rounding_depends_on_the_seed_and_no_global_generator(torchao: None) -> None:
    ends = []
    for seed in (1, 1, 2):
        training, state = ready([*EIGHT_BIT, f"seeds.dropout={seed}"])
        before = torch.get_rng_state()
        training.step(state)
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(weights(training)["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_non_finite_gradient_changes_no_weight(torchao: None) -> None:
    training, state = ready(EIGHT_BIT)
    with torch.no_grad():
        training.model.model.norm.weight[0] = float("inf")
    before = weights(training)
    with pytest.raises(TrainingFailed, match="not finite"):
        training.step(state)
    assert all(torch.equal(before[name], found) for name, found in weights(training).items())


def test_unsupported_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"passes cannot be added up: a step is one pass"):
        compose_run([*EIGHT_BIT, "train.micro_tokens=512"])
    with pytest.raises(ConfigError, match="full_ft"):
        compose_run([*EIGHT_BIT, "method=lora"])
    with pytest.raises(ConfigError, match=r"probe\.every"):
        compose_run([*EIGHT_BIT, "probe.every=5"])


def test_missing_torchao_is_refused_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_backward.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"sdsbench\[full-ft\]"):
        in_backward.require_torchao()


def test_flat_optimizer_has_no_8_bit_groups() -> None:
    values = [nn.Parameter(torch.ones(4))]
    with pytest.raises(KeyError):
        FlatOptimizer([Group("weights", values, 1e-3, 0.0, "adamw8bit")], TrainConfig(lr=1e-3))
