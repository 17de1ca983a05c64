"""A key that a method declares to be inert has no effect: six steps with another value have the same losses."""

from __future__ import annotations

from typing import Any

import pytest

from sdsbench.core.section import OnlyWhere, mark_of
from sdsbench.methods.base import lookup
from tests.methods.tiny import tiny_session

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("full_ft", {"scope": "all"}, {"targets": ["q_proj"]}),
    ("lora_xs", {"svd": "exact"}, {"svd_iterations": 0, "svd_oversampling": 3}),
    ("pissa", {"svd": "exact"}, {"svd_iterations": 0, "svd_oversampling": 3}),
    (
        "lora_pro",
        {"mode": "efficient"},
        {"betas": [0.1, 0.2], "epsilon": 1.0, "moment_dtype": "bfloat16", "first_count": 2, "square_dtype": "bfloat16"},
    ),
    (
        "lora_sb",
        {"start": "kaiming"},
        {
            "eta": "paper",
            "sign": False,
            "samples": 7,
            "sample_fraction": 0.5,
            "gradient_batch": 2,
            "gradient_dropout": True,
            "gradient_dtype": "bfloat16",
        },
    ),
    ("lora_sb", {"samples": 7}, {"sample_fraction": 0.5}),
    ("altlora", {"second_moment": False}, {"epsilon": 0.5}),
    ("altlora", {"moves": "both", "second_moment": True}, {"steps_per_turn": 3}),
    (
        "preconditioned_lora",
        {"form": "joint"},
        {"betas": [0.1, 0.2], "epsilon": 1.0, "bias_correction": True, "weight_decay": 1.0},
    ),
    ("dora", {"dropout": 0.0}, {"drop_base": True}),
    (
        "sds_lora",
        {"variant": "reset_lora"},
        {"refresh": "never", "phases": 2, "guard": 5.0, "pre_steps": 3, "pre_interval": 1},
    ),
    ("sds_lora", {"clear_state": False}, {"clear_head": True, "pre_interval": 3}),
    ("sds_lora", {"refresh": "never"}, {"phases": 2, "guard": 5.0, "pre_interval": 3}),
    ("sds_lora", {"refresh": "every"}, {"phases": 2, "pre_interval": 3}),
]


@pytest.mark.parametrize(("name", "keys", "changed"), CASES, ids=str)
def test_inert_keys_change_no_loss(name: str, keys: dict[str, Any], changed: dict[str, Any]) -> None:
    plain, other = tiny_session(name, **keys), tiny_session(name, **keys, **changed)
    assert other.method.config.inert() == set(changed)
    assert plain.train(6) == other.train(6)


def test_every_conditional_key_has_a_case() -> None:
    """CASES covers every key that its methods may declare to be inert."""
    for name in {case[0] for case in CASES}:
        fields = lookup(name)[1].model_fields
        conditional = {key for key, field in fields.items() if isinstance(mark_of(field), OnlyWhere)}
        assert conditional == {key for case, _, changed in CASES if case == name for key in changed}, name
