"""start_from: a run starts from another run's trained tensors, with other labels, as LoRA-XS's RTE runs from MNLI."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from sdsbench.core.errors import ConfigError, Refused, Unavailable
from sdsbench.core.record import Record
from sdsbench.methods.named_tensors import named_tensors
from sdsbench.models.head import label_parameters
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.execute import execute
from sdsbench.runs.prepare import ready_to_train
from tests.tools import QUIET

FAST = [
    "model=vit_micro", "method=lora_xs", "method.rank=4", "data.source=embedded", "data.train_limit=16",
    "train.batch_size=8", "train.max_steps=2", "eval.limit=4", "eval.untrained=false", "threads=1",
]  # fmt: skip
FIRST_TASK, SECOND_TASK = "task=vtab/dtd", "task=vtab/svhn"  # with 47 and 10 labels


def finish(folder: Path, *words: str) -> Record:
    return execute(compose_run([*FAST, f"output_root={folder}", *words]), QUIET)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The folder of runs and the record of a finished run on the first task."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, finish(folder, FIRST_TASK)


def test_run_starts_from_the_tensors_of_the_other_run(first: tuple[Path, Record]) -> None:
    folder, record = first
    words = [*FAST, SECOND_TASK, f"output_root={folder}"]
    config = compose_run([*words, f"start_from='{record.run_id}'"])
    training, state = ready_to_train(config)
    saved = load_file(folder / record.run_id / "adapter" / "adapter.safetensors")
    for name, layer in state.layers.items():
        for key, tensor in layer.method_tensors().items():
            assert torch.equal(tensor, saved[f"{name}.{key}"]), (name, key)
    plain, _ = ready_to_train(compose_run(words))
    labels = label_parameters(training.model)
    of = lambda model: dict(model.named_parameters())  # noqa: E731
    assert labels and all(torch.equal(of(training.model)[name], of(plain.model)[name]) for name in labels)
    assert not any(key.startswith("state") for key in state.optimizer.tensors()), "the optimizer has no state"


def test_record_names_the_start_and_changed_start_tensors_are_refused(first: tuple[Path, Record]) -> None:
    """The run has its own id and records the hash of the tensors that it started from."""
    folder, record = first
    start = f"start_from='{record.run_id}'"
    plain, begun = finish(folder, SECOND_TASK), finish(folder, SECOND_TASK, start)
    assert begun.run_id != plain.run_id and begun.losses.first != plain.losses.first
    assert begun.provenance and begun.provenance.start and plain.provenance and plain.provenance.start is None
    assert begun.config["start_from"] == record.run_id
    assert finish(folder, SECOND_TASK, start) == begun, "the finished run is reused"
    path = folder / record.run_id / "adapter" / "adapter.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + bytes(4))
    try:
        with pytest.raises(Refused, match="made with other trained tensors to start from"):
            finish(folder, SECOND_TASK, start)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("method", [["full_ft"], ["peft", "method.type=vera"]], ids=str)
def test_methods_without_adapted_layers_start_from_all_saved_tensors(method: list[str], tmp_path: Path) -> None:
    """Every tensor that the other run saved is in the model, frozen projections included, except the label layer."""
    words = [word for word in FAST if not word.startswith("method")]
    words += [f"method={method[0]}", *method[1:], "train.save=all", f"output_root={tmp_path}"]
    record = execute(compose_run([*words, FIRST_TASK]), QUIET)
    training, _ = ready_to_train(compose_run([*words, SECOND_TASK, f"start_from='{record.run_id}'"]))
    labels, present = label_parameters(training.model), named_tensors(training.model)
    saved = load_file(tmp_path / record.run_id / "adapter" / "adapter.safetensors")
    others = {key.removeprefix("other."): tensor for key, tensor in saved.items()}
    assert labels < others.keys()
    for name in others.keys() - labels:
        assert torch.equal(present[name], others[name]), name


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["start_from=0000000000000abc"], Unavailable, r"start_from=0000000000000abc: accepted: the id of a finished"),
        (["start_from={id}", "method.rank=2"], Refused, r"start_from=.*a run with the same method\.\*"),
        (["start_from={id}", "method=lora"], Refused, r"start_from=.*a run with the same method\.\*"),
        (["start_from=yesterday"], ConfigError, r"start_from.*16 hexadecimal digits"),
    ],
)
def test_invalid_start_is_refused(
    words: list[str], error: type[Exception], message: str, first: tuple[Path, Record], tmp_path: Path
) -> None:
    folder, record = first
    shutil.copytree(folder / record.run_id, tmp_path / record.run_id)
    with pytest.raises(error, match=message):
        finish(tmp_path, SECOND_TASK, *(word.replace("{id}", f"'{record.run_id}'") for word in words))


def test_start_from_is_part_of_the_run_id(first: tuple[Path, Record]) -> None:
    words = [*FAST, SECOND_TASK]
    ids = {run_id(compose_run([*words, f"start_from='{start}'"])) for start in ("1" * 16, "2" * 16)}
    assert len(ids | {run_id(compose_run(words))}) == 3


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (RobertaForSequenceClassification, RobertaConfig, {"classifier.out_proj.weight", "classifier.out_proj.bias"}),
        (BertForSequenceClassification, BertConfig, {"classifier.weight", "classifier.bias"}),
    ],
)
def test_label_parameters_are_those_of_the_last_layer(kind: Any, config: Any, expected: set[str]) -> None:
    """RoBERTa's head has a layer before the label layer, which start_from keeps; BERT's head is the label layer."""
    with torch.device("meta"):
        model = kind(config(num_hidden_layers=1, num_labels=3))
    assert label_parameters(model) == expected
