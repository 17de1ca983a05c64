"""Starts that read data before the first step, as in the authors' code: SDS-LoRA's stage, LoRA-SB's batches."""

from __future__ import annotations

import pytest
import torch

from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.prepare import ready_to_train
from tests.tools import QUIET

COMMON = (
    "model=micro", "task=gsm8k", "data.source=embedded", "data.train_limit=24", "train.batch_size=4", "dtype=float32",
    "threads=1", "device=cpu", "train.max_steps=12",
)  # fmt: skip


def test_sds_lora_keeps_only_the_bases_of_its_first_stage() -> None:
    """A = B = 0, so the model is the base model; the bases are orthonormal; no optimizer moments remain."""
    training, state = ready_to_train(compose_run([*COMMON, "method=sds_lora", "method.pre_steps=12"]))
    for layer in state.layers.values():
        assert not layer.A.any() and not layer.B.any()
        torch.testing.assert_close(layer.Q_A.t() @ layer.Q_A, torch.eye(8), atol=1e-4, rtol=0)
    assert not any(key.startswith("state") for key in state.optimizer.tensors())
    first = training.step(state)
    plain = ready_to_train(compose_run([*COMMON, "method=sds_lora"]))
    assert first.loss == plain[0].step(plain[1]).loss, "in both runs, the base model sees the first batch"
    assert state.step == 1


def test_runs_with_starts_from_data_finish_and_record_their_facts(tmp_path) -> None:
    words = [*COMMON, f"output_root={tmp_path}", "eval.limit=1", "eval.untrained=false", "task.max_new_tokens=2"]
    sds = execute(compose_run([*words, "method=sds_lora", "method.pre_steps=10"]), QUIET)
    assert sds.status == "done" and sds.facts["pre_steps"] == 10.0
    keys = ["method.eta=code", "method.gradient_batch=3", "method.samples=5", "method.gradient_dropout=true"]
    sb = execute(compose_run([*words, "method=lora_sb", "method.rank=16", "train.warmup_ratio=0.5", *keys]), QUIET)
    assert sb.status == "done"
    batches, epochs = 8, 12 / 6
    assert sb.facts["eta"] == pytest.approx(2e-3 / (0.5 * epochs * batches))
