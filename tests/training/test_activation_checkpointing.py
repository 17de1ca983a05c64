"""train.activation_checkpointing: the same losses with far fewer bytes kept for the backward pass."""

from __future__ import annotations

import pytest

from sdsbench.core.errors import ConfigError
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id, with_values
from sdsbench.runs.prepare import ready_to_train
from sdsbench.training import activation_checkpointing
from sdsbench.training.saved_bytes import PeakBytes, saved_bytes

RUN = ["model=micro", "task=gsm8k", "data.source=embedded", "train.batch_size=4", "train.max_steps=4", "threads=1"]


@pytest.mark.parametrize("method", ("sds_lora", "dora", "full_ft"))
def test_checkpointing_keeps_losses_and_reduces_saved_bytes(method: str) -> None:
    config = compose_run([f"method={method}", *RUN])
    again = with_values(config, {"train.activation_checkpointing": True})
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


def test_smaller_pieces_keep_losses_and_lower_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, peaks = [], []
    for size in (2048, 100):
        monkeypatch.setattr(activation_checkpointing, "PIECE", size)
        training, state = ready_to_train(
            compose_run(["method=full_ft", "train.activation_checkpointing=true", "dtype=float32", *RUN])
        )
        training.model.train()
        losses.append([training.step(state).loss for _ in range(3)])
        parts = training.split(training.batch(4))
        assert sum(example.length for example in parts[0]) > 200
        with PeakBytes() as peak:
            training.backward(parts)
        peaks.append(peak.peak)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert peaks[1] < 0.7 * peaks[0]


def test_pieces_hold_whole_sequences() -> None:
    assert activation_checkpointing.pieces([2000, 48, 1, 3000, 5]) == [[2000, 48], [1], [3000], [5]]


def test_checkpointing_with_dropout_is_refused() -> None:
    with pytest.raises(ConfigError, match="two masks"):
        compose_run(["method=lora", "method.dropout=0.1", "train.activation_checkpointing=true", *RUN])
