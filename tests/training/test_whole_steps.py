"""Steps whose numbers depend on how they are split into passes are made in one pass, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification, SwinConfig

from sdsbench.core.errors import TrainingFailed
from sdsbench.core.run_folder import read_record
from sdsbench.methods.base import build, lookup
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.training.assemble import assemble
from sdsbench.training.loop import Training
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig
from sdsbench.training.whole_steps import reason_for_whole_steps
from tests.methods.tiny import tiny_model
from tests.tools import QUIET
from tests.training.test_passes import (
    ALLOCATION_ERROR,
    LENGTHS,
    SEEDS,
    assemble_training,
    assert_cuts_agree,
    examples_of,
    limit_memory,
    model_with_dropout,
    objective_of,
)

DRAWS, MIXES = "draw random numbers of their own", "mix the tokens of different examples"
TYPES: list[tuple[str, dict[str, Any], str | None]] = [
    ("lora", {"lora_dropout": 0.2}, None),
    ("lora", {"lora_dropout": 0.2, "use_dora": True}, None),
    ("vera", {"r": 4, "vera_dropout": 0.2}, None),
    ("loha", {"r": 2}, None),
    ("boft", {}, None),
    ("oft", {"oft_block_size": 8}, None),
    ("ia3", {}, None),
    ("miss", {"r": 2}, None),
    ("fourierft", {"n_frequency": 20}, None),
    ("randlora", {"r": 4}, None),
    ("pvera", {"r": 4}, DRAWS),
    ("loha", {"r": 2, "rank_dropout": 0.2}, DRAWS),
    ("loha", {"r": 2, "module_dropout": 0.2}, DRAWS),
    ("lokr", {"r": 2, "rank_dropout": 0.2}, DRAWS),
    ("boft", {"boft_dropout": 0.1}, DRAWS),
    ("lily", {"r": 4}, MIXES),
]


def put_together(model: Any, family: str, method: Any) -> tuple[Training, TrainState]:
    config = TrainConfig(batch_size=len(LENGTHS), max_steps=10)
    objective = objective_of(family, model)
    training, state, _ = assemble(model, method, objective, examples_of(family), config, SEEDS, torch.device("cpu"))
    model.train()
    return training, state


@pytest.mark.parametrize(("kind", "options", "expected"), TYPES, ids=[f"{t[0]}-{'-'.join(t[1])}" for t in TYPES])
def test_layers_of_peft_that_depend_on_the_split_are_found(
    kind: str, options: dict[str, Any], expected: str | None
) -> None:
    method = build(lookup("peft")[1](name="peft", type=kind, options=options))  # type: ignore[call-arg]
    training, state = put_together(tiny_model("decoder"), "decoder", method)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    global_state = torch.get_rng_state()
    reason = reason_for_whole_steps(training, state)
    assert torch.equal(torch.get_rng_state(), global_state) and training.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.state_dict().items())
    if expected is None:
        assert reason is None
        assert_cuts_agree(training, state)
    else:
        assert reason == f"the layers of method=peft {expected}"
        with pytest.raises(AssertionError):
            assert_cuts_agree(training, state)


def test_layers_of_this_package_need_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, family in (("lora", "decoder"), ("full_ft", "encoder"), ("dora", "vision")):
        training, state = assemble_training(tiny_model(family), family, name)
        monkeypatch.setattr(type(training.objective), "loss", None)
        assert reason_for_whole_steps(training, state) is None
        monkeypatch.undo()


@pytest.mark.parametrize("rate", (0.0, 0.5))
def test_a_base_that_leaves_out_paths_is_one_pass(rate: float) -> None:
    """Swin draws from the global generators which paths it leaves out, so another split draws others."""
    config = SwinConfig(image_size=8, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=2)
    config.drop_path_rate = rate
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageClassification.from_config(config)
    training, state = assemble_training(model, "vision", "lora", targets=["q_proj", "v_proj"])
    assert training.dropout.base_drops == (rate > 0)
    if rate:
        assert "the base model draws" in (reason_for_whole_steps(training, state) or "")
    else:
        assert reason_for_whole_steps(training, state) is None
        assert_cuts_agree(training, state)


def test_masked_dropout_of_a_base_leaves_any_split_free() -> None:
    for family in ("encoder", "decoder"):
        training, state = assemble_training(model_with_dropout(family), family, "lora")
        assert training.dropout.base_drops and reason_for_whole_steps(training, state) is None


@pytest.mark.parametrize(("dropout", "whole"), [(0.0, False), (0.2, True)])
def test_padded_batches_with_dropout_are_one_pass(dropout: float, whole: bool) -> None:
    """Without dropout any split of padded batches has the same loss and gradient."""
    training, state = assemble_training(tiny_model("decoder"), "decoder", "lora", dropout=dropout)
    training.objective.padded = True
    assert (reason_for_whole_steps(training, state) is not None) == whole
    if whole:
        with pytest.raises(AssertionError):
            assert_cuts_agree(training, state)
    else:
        assert_cuts_agree(training, state)


RUN = [
    "model=micro", "data.source=embedded", "data.train_limit=64", "train.max_steps=2", "eval.limit=1", "threads=1",
    "eval.untrained=false", "task.max_new_tokens=2", "dtype=float32", "method=peft", "method.type=pvera",
    "method.options={r: 4}",
]  # fmt: skip


def test_a_run_says_so_and_memory_that_is_short_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    records = [
        execute(
            compose_run([*RUN, f"output_root={tmp_path / str(tokens)}", f"train.micro_tokens={tokens}"]),
            RunContext(log=said.append),
        )
        for tokens in ("auto", 64)
    ]
    assert records[0].losses == records[1].losses and records[0].run_id == records[1].run_id
    assert records[1].placing["micro_tokens"] is None
    assert sum(f"each step in one pass (the layers of method=peft {DRAWS})" in line for line in said) == 2
    limit_memory(monkeypatch, 250, ALLOCATION_ERROR)
    with pytest.raises(TrainingFailed, match="out of memory"):
        execute(compose_run([*RUN, f"output_root={tmp_path / 'short'}"]), QUIET)
    assert read_record(next((tmp_path / "short").glob("*/record.json"))).status == "oom"
