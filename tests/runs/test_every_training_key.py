"""A key under `train` or `seeds` changes the losses of a run if and only if it is part of the run's id."""

from __future__ import annotations

from functools import cache

import pytest

from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import PLACING, inert_keys
from sdsbench.runs.prepare import ready_to_train

COMMON = (
    "method=lora", "method.dropout=0.1", "data.source=embedded", "data.train_limit=24", "train.max_steps=null",
    "train.epochs=1", "train.batch_size=4", "train.best_rows=4", "dtype=float32", "threads=1", "device=cpu",
)  # fmt: skip
TASKS = {
    "text": ("model=micro", "task=gsm8k"),
    "text without dropout": ("model=micro", "task=gsm8k", "method.dropout=0"),
    "images": ("model=vit_micro", "task=vtab/dtd"),
    "warm-up": ("model=micro", "task=gsm8k", "train.warmup_ratio=0.4"),
    "weight decay": ("model=vit_micro", "task=vtab/dtd", "train.weight_decay=10.0"),
    "best step": ("model=micro", "task=gsm8k", "train.best_every=2"),
    "adjusted gradients": ("model=micro", "task=gsm8k", "method=preconditioned_lora", "train.clip_norm=0.01"),
}
OTHER_VALUES = {
    "train.lr": "1e-3",
    "train.head_lr": "1e-6",
    "train.batch_size": "8",
    "train.micro_tokens": "64",
    "train.mean_over": "1",
    "train.epochs": "2",  # the learning rate falls more slowly
    "train.max_steps": "4",
    "train.max_length": "60",
    "train.schedule": "linear",
    "train.warmup_ratio": "0.5",
    "train.warmup_rounding": "down",
    "train.order": "sequential",
    "train.optimizer": "sgd",
    "train.betas": "[0.5,0.6]",
    "train.weight_decay": "10.0",
    "train.decay_vectors": "true",
    "train.clip_norm": "1e-8",
    "train.clip": "adjusted",
    "train.best_every": "3",
    "train.best_rows": "8",
    "train.checkpoint_every": "1",
    "train.save": "all",
    "train.activation_checkpointing": "true",
    "seeds.data": "1",
    "seeds.init": "1",
    "seeds.dropout": "1",
}
NO_DROPOUT = "train.activation_checkpointing"  # refused with dropout: recomputed activations would have other masks
CASES = [("text without dropout" if key == NO_DROPOUT else "text", key) for key in OTHER_VALUES]
CASES += [("images", "train.head_lr"), ("images", "train.max_length"), ("adjusted gradients", "train.clip")]
CASES += [
    ("best step", "train.best_rows"),
    ("warm-up", "train.warmup_rounding"),
    ("weight decay", "train.decay_vectors"),
]


@cache
def losses(*words: str) -> list[float]:
    """The losses of the first four optimizer steps."""
    training, state = ready_to_train(compose_run(words))
    training.model.train()
    return [training.step(state).loss for _ in range(4)]


@pytest.mark.parametrize(("task", "key"), CASES)
def test_key_changes_the_losses_exactly_where_it_is_part_of_the_run_id(task: str, key: str) -> None:
    words = (*COMMON, *TASKS[task])
    changed = (*words, f"{key}={OTHER_VALUES[key]}")
    in_run_id = key not in PLACING and key not in inert_keys(compose_run(changed))
    same = losses(*changed) == pytest.approx(losses(*words), rel=1e-6)  # other micro-batches change the last bits
    assert same != in_run_id


def test_every_key_of_train_and_seeds_is_tested() -> None:
    config = compose_run([*COMMON, *TASKS["text"]])
    keys = {
        f"{section}.{name}" for section in ("train", "seeds") for name in type(getattr(config, section)).model_fields
    }
    assert keys == OTHER_VALUES.keys()
