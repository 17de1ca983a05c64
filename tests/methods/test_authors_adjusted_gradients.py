"""Preconditioned LoRA and LoRA-Pro against recorded steps of their authors' optimizers, also with clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdsbench.methods.base import lookup
from sdsbench.methods.lora_pro import adjusted_gradients
from sdsbench.training.training_config import TrainConfig
from tests.methods.replay import Replay, largest_difference, layer_names, recorded_tensors
from tests.methods.tiny import METHODS


def differences_from_series(
    file: str, method: str, series: str, lr: float, limit: float | None, recorded: bool, clip: str = "raw", **keys: Any
) -> list[float]:
    """Train five steps; returns the largest difference of A and B from the recorded series after each.

    Gradients of A and B are those of the file (`recorded`), or computed from the file's dL/dW.
    """
    train = TrainConfig(lr=lr, schedule="constant", clip_norm=limit, clip=clip, max_steps=5)
    replay = Replay(file, method, train, alpha=8.0, **keys).set_values(A="A0")
    if recorded:
        replay.set_values(B="B0")
    differences = []
    for step in range(1, 6):
        replay.set_gradients(step, A="gA", B="gB") if recorded else replay.backward(step)
        report = replay.update()
        if (norm := replay.tensors.get(f"{series}.raw_norm")) is not None:
            assert report.grad_norm == pytest.approx(float(norm[step - 1]), rel=2e-3)
        differences.append(replay.largest_difference_from(series, step, "A", "B"))
    return differences


@pytest.mark.parametrize("clip", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("start", ["generic", "zero_B"])
def test_preconditioned_lora_equals_scaled_adam_of_the_sds_author(start: str, clip: float | None) -> None:
    """Raw gradients are clipped before they are divided by Gram matrices."""
    series = f"trainer.{start}.{'clipped' if clip else 'unclipped'}"
    differences = differences_from_series(
        "scaled_adam", "preconditioned_lora", series, 1e-3, clip, start == "generic", damping=1e-6
    )
    assert max(differences) < 2e-5, differences


@pytest.mark.parametrize(
    ("damping", "corrected"),
    [(1e-6, False), (1e-2, False), (1e-6, True)],
    ids=["1e-06", "0.01", "1e-06-bias_corrected"],
)
@pytest.mark.parametrize("clip", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("start", ["generic", "zero_B"])
def test_preconditioned_lora_equals_scaled_adam_of_its_authors(
    start: str, clip: float | None, damping: float, corrected: bool
) -> None:
    """A moves before B, with Adam as in their launch scripts (no bias correction) or bias-corrected."""
    series = f"pilanci.{start}.{'clipped' if clip else 'unclipped'}.reg{damping:g}"
    series += ".bias_corrected" if corrected else ""
    keys = {"form": "authors", "damping": damping, "bias_correction": corrected}
    differences = differences_from_series(
        "scaled_adam", "preconditioned_lora", series, 1e-3, clip, start == "generic", **keys
    )
    assert max(differences) < 5e-5, differences
    if not corrected and start == "generic":
        joint = differences_from_series(
            "scaled_adam", "preconditioned_lora", series, 1e-3, clip, start == "generic", damping=damping
        )
        assert max(joint) > 1e-2, "the form of SDS-LoRA's author differs"


def test_weight_decay_of_preconditioned_lora_equals_that_of_its_authors() -> None:
    """Each factor decays after it moved; A does so before the Gram matrix for gB is computed from it."""
    series, keys = "pilanci.generic.unclipped.reg0.01.decay0.1", {"form": "authors", "damping": 1e-2}
    decayed = differences_from_series(
        "scaled_adam", "preconditioned_lora", series, 1e-3, None, True, weight_decay=0.1, **keys
    )
    assert max(decayed) < 5e-6, decayed
    without_decay = differences_from_series("scaled_adam", "preconditioned_lora", series, 1e-3, None, True, **keys)
    assert min(without_decay) > 5e-5, without_decay


AUTHORS_DAMPING = {"damping": 1e-8, "damping_form": "absolute"}


@pytest.mark.parametrize("case", ["plain", "small_B", "tiny_B"])
@pytest.mark.parametrize("code", ["deepspeed", "trainer", "exact"])
def test_lora_pro_gradients_equal_those_of_its_authors(code: str, case: str) -> None:
    """Gradient pairs without and with X at fixed A and B, with the absolute damping of both codes or almost none."""
    tensors = recorded_tensors("lora_pro")
    relative, damping = code == "exact", 1e-12 if code == "exact" else 1e-8
    for layer in layer_names(tensors):
        a, b, ga, gb = (tensors[f"{layer}.{name}"] for name in ("A0", f"{case}.B", f"{case}.gA", f"{case}.gB"))
        batch = [tensor.double()[None] if relative else tensor[None] for tensor in (a, b, ga, gb)]
        name, closest = ("trainer.X", True) if code == "trainer" else (f"{code}.no_X", False)
        found = adjusted_gradients(*batch, 2.0, damping, relative, closest)
        for value, own in zip(found, ("gA", "gB"), strict=True):
            assert largest_difference(value[0], tensors[f"{layer}.{case}.{name}.{own}"]) < 3e-5, (layer, own)
        if closest:
            without = adjusted_gradients(*batch, 2.0, damping, relative, False)
            moved = (found[0] - without[0])[0] @ torch.linalg.pinv(batch[0][0])
            assert largest_difference(moved, tensors[f"{layer}.{case}.{name}"]) < 1e-3, "X itself"


FULL = {"mode": "full", "scaling": "standard"}
FULL_SERIES = [
    ("exact", FULL | {"damping": 1e-18, "damping_form": "absolute"}, 2e-3),
    ("from_zero_fp32_moment", FULL | AUTHORS_DAMPING, 1e-4),
    ("from_zero", FULL | AUTHORS_DAMPING | {"square_dtype": "bfloat16"}, 1e-4),
    ("as_is", FULL | AUTHORS_DAMPING | {"square_dtype": "bfloat16", "first_count": 2}, 1e-3),
]


@pytest.mark.parametrize("lr", ["2e-05", "0.002"])
@pytest.mark.parametrize(("series", "keys", "tolerance"), FULL_SERIES, ids=[case[0] for case in FULL_SERIES])
def test_full_lora_pro_equals_its_authors_steps(series: str, keys: dict[str, Any], tolerance: float, lr: str) -> None:
    """Five steps from B = 0 by their unchanged code (as_is), and without its counter, rounding and damping."""
    differences = differences_from_series(
        "lora_pro", "lora_pro", f"full.{series}.lr{lr}", float(lr), None, False, **keys
    )
    assert max(differences) < tolerance, differences


def test_full_lora_pro_is_clipped_as_in_its_authors_code() -> None:
    """Adjusted gradients are scaled by the norm of the raw gradients (train.clip=raw_norm)."""
    keys = FULL | AUTHORS_DAMPING | {"square_dtype": "bfloat16", "first_count": 2}
    differences = differences_from_series(
        "lora_pro", "lora_pro", "full.as_is_clipped.lr2e-05", 2e-5, 1.0, False, "raw_norm", **keys
    )
    assert max(differences) < 1e-3, differences


@pytest.mark.parametrize("case", ["plain", "small_B", "tiny_B"])
@pytest.mark.parametrize("code", ["deepspeed", "exact"])
def test_full_lora_pro_projects_the_adam_direction_as_its_authors(code: str, case: str) -> None:
    """X and the pair with X for their Adam direction d (step counter 5, one update), from s B^T d and s d A^T."""
    tensors = recorded_tensors("lora_pro")
    for layer in layer_names(tensors):
        recorded = lambda name: tensors[f"{layer}.{name}"]  # noqa: B023, E731
        a, b = recorded("A0"), recorded(f"{case}.B")
        ga, gb = (recorded(f"{case}.{code}.direction.{name}") for name in ("gA", "gB"))
        batch = [tensor.double()[None] if code == "exact" else tensor[None] for tensor in (a, b, ga, gb)]
        found = adjusted_gradients(*batch, 2.0, 1e-18 if code == "exact" else 1e-8, False, True)
        for value, own in zip(found, ("gA", "gB"), strict=True):
            expected = recorded(f"{case}.{code}.direction.X.{own}")
            assert largest_difference(value[0], expected) < 1e-4, (layer, own)
        without = adjusted_gradients(*batch, 2.0, 1e-18 if code == "exact" else 1e-8, False, False)
        moved = (found[0] - without[0])[0] @ torch.linalg.pinv(batch[0][0])
        assert largest_difference(moved, recorded(f"{case}.{code}.direction.X")) < 1e-3, "X itself"
        if case == "plain":
            pair = (recorded(f"plain.{code}.no_X.{own}") for own in ("gA", "gB"))
            equivalent = 2.0 * (b @ next(pair) + next(pair) @ a)
            assert largest_difference(equivalent, recorded(f"plain.{code}.equivalent")) < 1e-5
            direction = recorded(f"plain.{code}.direction")
            assert largest_difference(2.0 * b.t() @ direction, ga) < 1e-5
            assert largest_difference(2.0 * direction @ a.t(), gb) < 1e-5


@pytest.mark.parametrize("clip", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("lr", ["0.0001", "0.005"])
def test_efficient_lora_pro_equals_that_of_the_sds_author(lr: str, clip: float | None) -> None:
    series = f"trainer.{'clipped' if clip else 'unclipped'}.lr{lr}"
    keys = AUTHORS_DAMPING | {"scaling": "standard"}
    differences = differences_from_series("lora_pro", "lora_pro", series, float(lr), clip, False, **keys)
    assert max(differences) < 1e-3, differences


ADJUSTING = [name for name in METHODS if lookup(name)[0].adjusts_gradients()]


def test_methods_that_adjust_gradients_are_these_three() -> None:
    assert ADJUSTING == ["altlora", "lora_pro", "preconditioned_lora"]


@pytest.mark.parametrize("method", ADJUSTING)
def test_clip_selects_the_norm_before_or_after_the_adjustment(method: str) -> None:
    """The norm of the gradients from backward (`raw`), or of those that the method adjusted (`adjusted`)."""

    def one_step(clip: str, clip_norm: float | None) -> tuple[float, torch.Tensor]:
        train = TrainConfig(lr=1.0, schedule="constant", optimizer="sgd", clip=clip, clip_norm=clip_norm)
        replay = Replay("scaled_adam", method, train, alpha=4.0 if method == "lora_pro" else 8.0).set_values(A="A0")
        assert replay.method.scale() == 2.0
        before = {name: layer.B.detach().clone() for name, layer in replay.layers.items()}
        replay.backward(1)
        norm = replay.update().grad_norm
        moved = [(layer.B.detach() - before[name]).flatten() for name, layer in replay.layers.items()]
        return norm, torch.cat(moved)  # while B = 0 only B moves

    raw, unclipped = one_step("raw", None)
    adjusted, same = one_step("adjusted", None)
    assert torch.equal(unclipped, same), "without a limit the order does not matter"
    assert raw == pytest.approx(float(recorded_tensors("scaled_adam")["trainer.zero_B.unclipped.raw_norm"][0]))
    assert adjusted == pytest.approx(float(unclipped.norm()), rel=1e-5) and abs(adjusted - raw) > 0.05 * raw
    torch.testing.assert_close(one_step("raw", 0.1)[1], unclipped * 0.1 / raw, rtol=1e-4, atol=1e-8)
    assert float(one_step("adjusted", 0.1)[1].norm()) == pytest.approx(0.1, rel=1e-4)
