"""train.activation_checkpointing: the same losses, far less kept for backward."""

from __future__ import annotations

import dataclasses

import pytest

from sdsbench.configuration.compose import compose_run
from sdsbench.configuration.identity import run_id
from sdsbench.errors import ConfigError
from sdsbench.run import ready_to_train
from sdsbench.training.measure import saved_bytes

RUN = ["model=micro", "task=gsm8k", "data.source=embedded", "train.batch_size=4", "train.max_steps=4", "threads=1"]


@pytest.mark.parametrize("method", ("sds_lora", "dora", "full_ft"))
def test_same_losses_and_less_memory(method: str) -> None:
    config = compose_run([f"method={method}", *RUN])
    again = dataclasses.replace(config, train=dataclasses.replace(config.train, activation_checkpointing=True))
    assert run_id(config) == run_id(again)
    losses, sizes = [], []
    for case in (config, again):
        training, state = ready_to_train(case)
        training.model.train()
        losses.append([training.step(state).loss for _ in range(3)])
        batch = training.batch(4)
        forward = lambda training=training, batch=batch: training.objective.loss(  # noqa: E731
            training.model, batch, training.device
        )
        sizes.append(saved_bytes(training.model, forward))
    assert losses[0] == losses[1]
    assert sizes[1] < sizes[0] / 3


def test_refused_with_dropout() -> None:
    with pytest.raises(ConfigError, match="two masks"):
        compose_run(["method=lora", "method.dropout=0.1", "train.activation_checkpointing=true", *RUN])
