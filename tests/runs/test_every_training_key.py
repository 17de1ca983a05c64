"""Configured once, read once: every key under train and seeds changes the losses of a run, or is known not to."""

from __future__ import annotations

from functools import cache

import pytest

from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.prepare import ready_to_train

TEXT = ("model=micro", "task=gsm8k", "protocol=quick", "train.epochs=1")
IMAGES = ("model=vit_micro", "task=vtab/dtd", "protocol=quick", "train.epochs=1")
COMMON = (
    "method=lora", "method.dropout=0.1", "data.source=embedded", "data.train_limit=24", "train.max_steps=null",
    "train.batch_size=4", "dtype=float32", "threads=1", "device=cpu",
)  # fmt: skip
CHANGES = {
    "train.lr": "1e-3",
    "train.batch_size": "8",
    "train.accumulation": "2",
    "train.epochs": "2",  # the rate falls more slowly
    "train.max_steps": "4",
    "train.max_length": "60",
    "train.schedule": "linear",
    "train.warmup_ratio": "0.5",
    "train.optimizer": "sgd",
    "train.betas": "[0.5,0.6]",
    "train.weight_decay": "10.0",
    "train.clip_norm": "1e-8",
    "seeds.data": "1",
    "seeds.init": "1",
    "seeds.dropout": "1",
    "method.dropout": "0.2",
    "method.rank": "4",
    "method.alpha": "4",
    "method.targets": "[q_proj]",
    "data.train_limit": "20",
    "data.order": "first",
    "seed": "1",
    "dtype": "bfloat16",
}
"""Key of a run on text -> another value of it."""
OF_A_HEAD = {"train.head_lr": "1e-6"}
"""Likewise for a run on images, whose new head trains."""
SAME_LOSSES = {"train.checkpoint_every": "1", "train.save": "all", "train.activation_checkpointing": "true"}
"""What is kept, and what is computed twice."""


@cache
def losses(*words: str) -> list[float]:
    """Of the first four optimizer steps."""
    training, state = ready_to_train(compose_run([*COMMON, *words]))
    training.model.train()
    return [training.step(state).loss for _ in range(4)]


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changes_the_losses(key: str) -> None:
    assert losses(*TEXT, f"{key}={CHANGES[key]}") != losses(*TEXT)


@pytest.mark.parametrize("key", OF_A_HEAD)
def test_a_key_of_the_head_changes_the_losses_of_a_task_with_one(key: str) -> None:
    assert losses(*IMAGES, f"{key}={OF_A_HEAD[key]}") != losses(*IMAGES)
    assert losses(*TEXT, f"{key}={OF_A_HEAD[key]}") == losses(*TEXT)


@pytest.mark.parametrize("key", SAME_LOSSES)
def test_a_key_changes_no_loss(key: str) -> None:
    assert losses(*TEXT, f"{key}={SAME_LOSSES[key]}") == losses(*TEXT)


def test_every_key_is_in_one_of_the_lists() -> None:
    config = compose_run([*COMMON, *TEXT])
    known = CHANGES.keys() | OF_A_HEAD.keys() | SAME_LOSSES.keys()
    for section in ("train", "seeds"):
        keys = {f"{section}.{name}" for name in vars(getattr(config, section))}
        assert keys <= known, f"put {sorted(keys - known)} in one of the lists"
