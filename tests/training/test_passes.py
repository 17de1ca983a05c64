"""Steps in several passes: any cut gives the same loss, gradient and dropout masks; too large a pass is halved."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, GPT2Config

from sdsbench.core import step_log
from sdsbench.core.errors import TrainingFailed
from sdsbench.core.run_folder import read_record
from sdsbench.methods.dropout_masks import ROWS, keep_mask
from sdsbench.models.conv1d import with_linear_
from sdsbench.models.head import unfreeze_head
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.tasks.images import EncodedImage, ImageBatcher
from sdsbench.tasks.sentences import EncodedSentence, SentenceBatcher
from sdsbench.training import activation_checkpointing, causal, classifier_logits, classifier_objective
from sdsbench.training.assemble import assemble
from sdsbench.training.attention import PADDING_MULTIPLE, padding_length
from sdsbench.training.causal import CausalObjective
from sdsbench.training.classifier_objective import LabelledObjective
from sdsbench.training.data_context import TrainingContext
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.passes import cut, out_of_memory
from sdsbench.training.state import TrainState
from sdsbench.training.tokens import EncodedText
from sdsbench.training.training_config import TrainConfig
from tests.methods.tiny import FAMILIES, LOW_RANK, METHODS, make_method, tiny_model
from tests.tools import QUIET

LENGTHS = (5, 9, 3, 11, 7, 4)
SEEDS = SimpleNamespace(init=0, data=0, dropout=3)


class Texts(CausalObjective):
    def unfreeze_head(self, model: Any) -> list[Any]:
        return []


class Labelled(LabelledObjective):
    def unfreeze_head(self, model: Any) -> list[Any]:
        return unfreeze_head(model)


def objective_of(family: str, model: Any) -> Any:
    if family == "decoder":
        return Texts(None, None, 0)
    batcher = ImageBatcher(None, None) if family == "vision" else SentenceBatcher(None, None, 0)  # type: ignore[arg-type]
    return Labelled(batcher, False, model)


def examples_of(family: str) -> list[Any]:
    generator = np.random.default_rng(0)
    if family == "vision":
        return [EncodedImage(generator.normal(size=(3, 8, 8)).astype(np.float32), float(n % 2)) for n in range(6)]
    rows = [generator.integers(0, 40, length).tolist() for length in LENGTHS]
    if family == "decoder":
        return [EncodedText(tuple(row), len(row) // 2) for row in rows]
    inputs = ({"input_ids": row, "attention_mask": [1] * len(row), "token_type_ids": [0] * len(row)} for row in rows)
    return [EncodedSentence(one, float(number % 2)) for number, one in enumerate(inputs)]


def assemble_training(
    model: Any, family: str, name: str, device: str = "cpu", **keys: object
) -> tuple[Training, TrainState]:
    method, config = make_method(name, **keys), TrainConfig(batch_size=len(LENGTHS), max_steps=10)
    objective = objective_of(family, model.to(device))
    parts = model, method, objective, examples_of(family), config, SEEDS, torch.device(device)
    training, state, _ = assemble(*parts)
    method.prepare(state.layers, TrainingContext(training, torch.Generator().manual_seed(0)))
    state.optimizer.refresh_masters()
    model.train()
    return training, state


def loss_and_gradient(training: Training, state: TrainState) -> tuple[float, Tensor]:
    """Loss and gradient of the next step."""
    assert isinstance(state.optimizer, FlatOptimizer)
    state.optimizer.zero_grad()
    with training.dropout.of_step(state.step + 1):
        loss = training.backward(training.split(training.batch(state.step + 1)))
    return loss, torch.cat([flat.grad for flat in state.optimizer.flat if flat.grad is not None]).clone()


def assert_cuts_agree(training: Training, state: TrainState) -> None:
    """Assert that passes of one, some and all examples agree, after a step that has changed every factor.

    To 1e-6 in fp32. Gradients of OLoRA and LoRA-GA, which subtract their start from the base, are differences of large
    numbers and round three times as much, as do those of peft's FourierFT. On CUDA, whose products sum in another order
    at each shape, to 1e-5.
    """
    of_loss, of_gradient = (1e-6, 1e-6) if training.device.type == "cpu" else (1e-5, 1e-5)
    if state.method.name in ("olora", "lora_ga", "peft"):
        of_gradient *= 3
    training.step(state)
    loss, gradient = loss_and_gradient(training, state)
    for tokens in (1, 16):
        again = dataclasses.replace(training, micro_tokens=tokens)
        assert len(again.split(training.batch(2))) > 1
        found, other = loss_and_gradient(again, state)
        assert found == pytest.approx(loss, rel=of_loss)
        assert (other - gradient).abs().max() <= of_gradient * gradient.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_do_not_depend_on_the_passes(method: str, family: str, device: str) -> None:
    keys = {"dropout": 0.2} if method in LOW_RANK else {}
    assert_cuts_agree(*assemble_training(tiny_model(family), family, method, device, **keys))


def model_with_dropout(family: str, hidden: float = 0.3) -> Any:
    """A random model with dropout of hidden states and of attention weights."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}
    bert = BertConfig(**shape, intermediate_size=48, hidden_dropout_prob=hidden, attention_probs_dropout_prob=0.3)
    gpt2 = GPT2Config(**shape, resid_pdrop=hidden, embd_pdrop=hidden, attn_pdrop=0.3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "encoder":
            return AutoModelForSequenceClassification.from_config(bert)
        return with_linear_(AutoModelForCausalLM.from_config(gpt2))


@pytest.mark.parametrize("hidden", [0.3, 0.0], ids=["all", "only attention"])
@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_masks_inside_the_base_do_not_depend_on_the_passes(family: str, hidden: float, device: str) -> None:
    """Masks of hidden states and attention weights are drawn example by example from the global generator."""
    training, state = assemble_training(
        model_with_dropout(family, hidden), family, "lora", device, dropout=0.2 if hidden else 0.0
    )
    assert_cuts_agree(training, state)
    gradients = [loss_and_gradient(training, dataclasses.replace(state, step=step))[1] for step in range(4)]
    training.model.eval()
    gradients.append(loss_and_gradient(training, state)[1])
    assert not any(torch.equal(one, other) for one, other in combinations(gradients, 2)), "masks differ between steps"


@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_recomputed_blocks_have_the_same_dropout_masks(
    family: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activation checkpointing changes neither the loss nor the gradient of a base with dropout."""
    found = []
    for again in (False, True):
        training, state = assemble_training(model_with_dropout(family), family, "lora", device)
        if again:
            monkeypatch.setattr(activation_checkpointing, "PIECE", 10)
            activation_checkpointing.enable(training.model)
        training.step(state)
        found.append(loss_and_gradient(training, state))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    assert (found[1][1] - found[0][1]).abs().max() <= 1e-6 * found[0][1].abs().max()


@given(st.integers(0, 3 * ROWS), st.integers(0, 2 * ROWS), st.integers(0, 2**32 - 1))
def test_mask_of_some_rows_is_part_of_a_larger_mask(first: int, rows: int, seed: int) -> None:
    whole = keep_mask(torch.empty(5 * ROWS, 3), 0.5, seed, 0)
    assert torch.equal(keep_mask(torch.empty(rows, 3), 0.5, seed, first), whole[first : first + rows])
    assert whole.unique().tolist() == [0.0, 1.0]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 900))
def test_passes_hold_each_example_once_longest_first_within_the_budget(lengths: list[int], budget: int) -> None:
    examples = [EncodedText((number,) * length, 0) for number, length in enumerate(lengths)]
    tokens = CausalObjective(None, None, 0).tokens
    parts = cut(examples, budget, tokens)
    assert sorted(e.ids[0] for part in parts for e in part) == list(range(len(lengths)))
    assert [e.length for part in parts for e in part] == sorted(lengths, reverse=True)
    assert all(parts) and all(tokens(part) <= budget or len(part) == 1 for part in parts)
    assert all(tokens([*one, other[0]]) > budget for one, other in pairwise(parts))
    assert cut(examples, None, tokens) == [sorted(examples, key=lambda e: -e.length)]


def record_tokens_of_passes(model: Any) -> list[int]:
    """A list that gets the number of tokens of every later forward pass of the model."""
    seen: list[int] = []

    def record(_: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        seen.append((args[0] if args else inputs["input_ids"]).numel())

    model.base_model.register_forward_pre_hook(record, with_kwargs=True)
    return seen


@pytest.mark.parametrize("family", ["decoder", "encoder"])
def test_filled_passes_have_the_same_loss_and_gradient(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training, state = assemble_training(tiny_model(family), family, "dora", dropout=0.2)
    training.step(state)
    loss, gradient = loss_and_gradient(training, state)
    for module in (causal, classifier_logits, classifier_objective):
        monkeypatch.setattr(module, "padding_length", lambda tokens, *_: -tokens % PADDING_MULTIPLE)
    seen = record_tokens_of_passes(training.model)
    for tokens in (None, 16):
        found, other = loss_and_gradient(dataclasses.replace(training, micro_tokens=tokens), state)
        assert found == pytest.approx(loss, rel=1e-6)
        assert (other - gradient).abs().max() <= 1e-6 * gradient.abs().max()
    assert set(seen) == {PADDING_MULTIPLE} and len(seen) > 3
    assert training.objective.positions(training.model, training.examples, training.device) == PADDING_MULTIPLE


def test_bf16_passes_on_a_cpu_are_filled_to_repeating_shapes() -> None:
    """oneDNN caches code for every shape of a bf16 product; fp32 products do not use oneDNN."""
    for dtype, filled in ((torch.bfloat16, True), (torch.float32, False)):
        training, state = assemble_training(tiny_model("decoder", dtype), "decoder", "lora")
        seen = record_tokens_of_passes(training.model)
        training.step(state)
        assert [count % PADDING_MULTIPLE == 0 for count in seen] == [filled]
    assert padding_length(65, torch.bfloat16, torch.device("cuda")) == 0, "CUDA kernels need no filling"


RUN = [
    "model=micro", "data.source=embedded", "data.train_limit=64", "train.max_steps=4", "eval.limit=1", "threads=1",
    "eval.untrained=false", "task.max_new_tokens=2", "dtype=float32", "method=lora", "method.dropout=0.1",
]  # fmt: skip


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception, from_pass: int = 0) -> list[int]:
    """Make training passes of more than `most` tokens raise `error`; the returned list gets each pass's tokens."""
    usual, tried = CausalObjective.losses, []

    def losses(self: Any, model: Any, shares: Sequence[Sequence[Any]], device: torch.device) -> list[Tensor]:
        found = usual(self, model, shares, device)
        if torch.is_grad_enabled():
            tried.append(sum(self.tokens(share) for share in shares))
            if tried[-1] > most and len(tried) > from_pass:
                raise error
        return found

    monkeypatch.setattr(CausalObjective, "losses", losses)
    return tried


ALLOCATION_ERROR = RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory")


def test_errors_of_failed_allocations_are_recognised() -> None:
    for error in (ALLOCATION_ERROR, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shapes do not match")) and not out_of_memory(KeyboardInterrupt())


def test_step_that_does_not_fit_is_repeated_in_smaller_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(root: Path) -> tuple[Any, list[dict[str, Any]]]:
        record = execute(compose_run([*RUN, f"output_root={root}"]), QUIET)
        return record, step_log.read(root / record.run_id / "metrics.jsonl")

    unlimited, expected = run(tmp_path / "unlimited")
    tried = limit_memory(monkeypatch, 250, ALLOCATION_ERROR, from_pass=2)
    limited, found = run(tmp_path / "limited")
    assert limited.status == "done" and limited.run_id == unlimited.run_id
    steps = [[line["loss"] for line in lines if line["kind"] == "train"] for lines in (found, expected)]
    assert steps[0] == pytest.approx(steps[1], rel=1e-6) and len(steps[0]) == 4
    (noted,) = [line for line in found if line["kind"] == "memory"]
    assert noted["step"] == 3 and limited.placing["micro_tokens"] == noted["micro_tokens"] <= 250
    assert unlimited.placing["micro_tokens"] > 500
    assert sum(tokens > 250 for tokens in tried[3:]) <= 2, "later steps do not try larger passes again"


def test_limit_of_tokens_per_pass_is_kept_in_checkpoints() -> None:
    training, state = assemble_training(tiny_model("decoder"), "decoder", "lora")
    state.micro_limit = 16
    _, other = assemble_training(tiny_model("decoder"), "decoder", "lora")
    other.load(state.tensors(), state.facts())
    assert other.micro_limit == 16 and len(training.split(training.batch(1), other.micro_limit)) > 2


def test_run_whose_longest_example_does_not_fit_is_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, 20, ALLOCATION_ERROR)
    with pytest.raises(TrainingFailed, match="out of memory"):
        execute(compose_run([*RUN, f"output_root={tmp_path}"]), QUIET)
    assert read_record(next(tmp_path.glob("*/record.json"))).status == "oom"


def test_failing_decomposition_is_recorded_as_a_failed_run(tmp_path: Path) -> None:
    """LoRA-SB starts from an SVD of a gradient, which is not finite here."""
    words = [word for word in RUN if not word.startswith("method=")]
    words += ["method=lora_sb", "method.noise_std=1e30", f"output_root={tmp_path}"]
    with pytest.raises(TrainingFailed, match=r"Try a lower train.lr\.$"):
        execute(compose_run(words), QUIET)
    assert read_record(next(tmp_path.glob("*/record.json"))).status == "failed"
