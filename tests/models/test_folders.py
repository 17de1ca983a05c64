"""Faulty model folders are refused before training: exit code 3 and one line with the file and the reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from sdsbench.__main__ import main
from sdsbench.core.errors import Unavailable
from sdsbench.models.load import load, load_tokenizer
from sdsbench.models.location import folder_of
from sdsbench.models.model_config import ModelConfig
from sdsbench.models.model_folder import fingerprint
from tests.models.folders import MICRO, model_folder

RUN = ["method=lora", "task=gsm8k", "data.source=embedded", "data.train_limit=8", "train.max_steps=1", "eval.limit=1",
       "eval.untrained=false"]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the micro model's folder, which a test may damage."""
    return Path(shutil.copytree(MICRO, tmp_path / "own"))


def edit_json(folder: Path, name: str = "config.json", **changed: object) -> None:
    """Set keys of a JSON file; a value of None deletes the key."""
    values = {**json.loads((folder / name).read_text()), **changed}
    (folder / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def shard(folder: Path, *names: str) -> None:
    """Rename the weights to a shard, and write an index that assigns tensors to the named files in turn."""
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    keys = list(load_file(folder / "model-1.safetensors"))
    where = {key: names[i % len(names)] for i, key in enumerate(keys)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def move_weights_outside(folder: Path) -> None:
    shard(folder, "../weights.safetensors")
    (folder / "model-1.safetensors").rename(folder.parent / "weights.safetensors")


def point_index_to_pickle(folder: Path) -> None:
    shard(folder, "pytorch_model.bin")
    torch.save(load_file(folder / "model-1.safetensors"), folder / "pytorch_model.bin")


def keep_only_pickle(folder: Path) -> None:
    point_index_to_pickle(folder)
    (folder / "model-1.safetensors").unlink()
    (folder / "model.safetensors.index.json").unlink()


def truncate_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def add_named_pipe(folder: Path) -> None:
    os.mkfifo(folder / "added_tokens.json")


def rename_block(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("model.layers.1.", "model.blocks.1."): tensor for key, tensor in held.items()}


def change_norm_shape(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return held | {"model.norm.weight": torch.ones(7)}


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "index names a file outside the folder": (move_weights_outside, "names '../weights.safetensors'"),
    "index names a pickle": (point_index_to_pickle, "names 'pytorch_model.bin'"),
    "only pickles": (keep_only_pickle, "only pickled weights"),
    "missing shard": (lambda f: shard(f, "model-1.safetensors", "model-2.safetensors"), "model-2.safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "it has none"),
    "truncated weights": (truncate_weights, "own/model.safetensors: cannot be read"),
    "Git LFS pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "git lfs pull",
    ),
    "quantised": (lambda f: edit_json(f, quantization_config={"quant_method": "gptq"}), "quantised"),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "an adapter"),
    "weights under another name": (
        lambda f: edit_json(f, transformers_weights="x.safetensors"),
        "transformers_weights",
    ),
    "renamed tensors": (lambda f: edit_tensors(f, rename_block), "missing: model.layers.1.input_layernorm.weight"),
    "tensor of another shape": (
        lambda f: edit_tensors(f, change_norm_shape),
        "of another shape: model.norm.weight ([7]",
    ),
    "more blocks": (lambda f: edit_json(f, num_hidden_layers=9), "missing: model.layers."),
    "fewer blocks": (lambda f: edit_json(f, num_hidden_layers=1), "unexpected: model.layers."),
    "a thousand million blocks": (lambda f: edit_json(f, num_hidden_layers=10**9), "num_hidden_layers=1000000000"),
    "a huge vocabulary": (lambda f: edit_json(f, vocab_size=10**12), "declares"),
    "a name for each of 10^9 labels": (lambda f: edit_json(f, num_labels=10**9), "num_labels=1000000000"),
    "text in place of a number": (lambda f: edit_json(f, hidden_size="wide"), "hidden_size"),
    "invalid JSON": (lambda f: (f / "config.json").write_text("{"), "own/config.json: cannot be read: ValueError"),
    "deeply nested JSON": (lambda f: (f / "config.json").write_text("[" * 100_000), "own/config.json: cannot be read"),
    "half of a surrogate pair": (lambda f: edit_json(f, note="\ud800"), "own/config.json: cannot be read: ValueError"),
    "JSON list": (lambda f: (f / "config.json").write_text("[]"), "a JSON object"),
    "unknown model type": (lambda f: edit_json(f, model_type="no_such"), "no_such"),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "own: cannot be read"),
    "named pipe": (add_named_pipe, "added_tokens.json: accepted: a file"),
    "no end token": (lambda f: edit_json(f, "tokenizer_config.json", eos_token=None), "no eos_token"),
    "tokenizer class of another format": (
        lambda f: edit_json(f, "tokenizer_config.json", tokenizer_class="CLIPTokenizer"),
        "own: cannot be read: Exception: Unk",
    ),
    "pad token outside the vocabulary": (
        lambda f: edit_json(f, "tokenizer_config.json", pad_token="<new>"),
        "pad_token has the number 1024",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_folder_is_refused_in_one_line_before_training(
    fault: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = FAULTS[fault]
    damage(own)
    words = [*RUN, "model=local", f"model.location={own}", f"output_root={tmp_path / 'runs'}"]
    assert main(words) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and len(line) < 1000
    assert not any(path.stat().st_size for path in tmp_path.glob("runs/*/metrics.jsonl")), "nothing was trained"


def test_fingerprint_covers_shards_and_settings_and_needs_weights(own: Path) -> None:
    whole = fingerprint(own)
    edit_json(own, "generation_config.json", repetition_penalty=1.3)
    assert fingerprint(own) != whole
    shard(own, "model-1.safetensors")
    shards = fingerprint(own)
    (own / "model.safetensors.index.json").unlink()
    with pytest.raises(Unavailable, match="it has none"):
        fingerprint(own)
    assert shards != whole


def local_config(folder: Path, family: str = "decoder") -> ModelConfig:
    return ModelConfig(name="local", family=family, source="folder", location=str(folder), revision=None)


def test_generation_ignores_penalties_of_the_folder_and_keeps_its_end_tokens(own: Path) -> None:
    """End tokens of generation_config.json are used; penalties and other settings in it change no answer."""
    from sdsbench.evaluation.generation import Generator, Request

    wanted = [Request("Tom has 12 apples. He buys 3 more.", 12, (), 3)]
    plain = load(local_config(own), torch.float32)
    answers = Generator(plain.model, plain.tokenizer, 1).answer(wanted)
    edit_json(own, "generation_config.json", repetition_penalty=5.0, no_repeat_ngram_size=1, length_penalty=-9.0,
          early_stopping=True, suppress_tokens=[4, 5, 6], eos_token_id=[2, 7])  # fmt: skip
    changed = load(local_config(own), torch.float32)
    assert Generator(changed.model, changed.tokenizer, 1).ends == {2, 7}
    changed.model.generation_config.eos_token_id = 2
    assert Generator(changed.model, changed.tokenizer, 1).answer(wanted) == answers


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_only_the_head_of_a_classifier_may_be_missing(kind: str, tmp_path: Path) -> None:
    """A missing head, or one of another size, is initialised from the run's seed; a missing base tensor is refused."""
    from sdsbench.models.head import head_parameters, initialise_head

    folder = model_folder(tmp_path, kind)
    loaded = load(local_config(folder, "encoder"), torch.float32, 3)
    initialise_head(loaded.model, 0)
    head = head_parameters(loaded.model)
    assert head["classifier.bias" if kind != "roberta" else "classifier.out_proj.bias"].shape == (3,)
    held = load_file(folder / "model.safetensors")
    base = {key: tensor for key, tensor in held.items() if key not in head}
    save_file(base | {"cls.predictions.bias": torch.zeros(9)}, folder / "model.safetensors", {"format": "pt"})
    load(local_config(folder, "encoder"), torch.float32, 2)
    missing = next(key for key in base if ".1." in key)
    save_file({key: t for key, t in base.items() if key != missing}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Unavailable, match=f"missing: {missing}"):
        load(local_config(folder, "encoder"), torch.float32, 2)


def test_code_beside_the_weights_is_not_run(own: Path) -> None:
    (own / "theirs.py").write_text(f"from pathlib import Path\nPath({str(own / 'ran')!r}).touch()\n")
    names = {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}
    edit_json(own, auto_map=names)
    edit_json(own, "tokenizer_config.json", auto_map={"AutoTokenizer": ["theirs.T", None]})
    assert load(local_config(own), torch.float32).model.config.model_type == "llama"
    assert not (own / "ran").exists()


def test_every_file_that_loading_may_read_is_in_the_fingerprint(own: Path) -> None:
    """Changing a file, adding one, and moving one to another folder each change the fingerprint."""
    (own / "additional_chat_templates").mkdir()
    names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
             "vocab.json", "merges.txt", "spiece.model", "own.jinja", "preprocessor_config.json",
             "additional_chat_templates/chat_template.jinja", "model-2.safetensors"]  # fmt: skip
    seen = {fingerprint(own)}
    for name in names:
        held = (own / name).read_bytes() if (own / name).exists() else b""
        (own / name).write_bytes(held + b" ")
        seen.add(fingerprint(own))
    assert len(seen) == 1 + len(names)
    (own / "additional_chat_templates" / "chat_template.jinja").rename(own / "chat_template.jinja")
    assert fingerprint(own) not in seen


def test_hub_is_asked_for_every_file_that_loading_reads(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chat templates and sentencepiece models have many names."""
    read = ["config.json", "model.safetensors", "merges.txt", "spiece.model", "chat_template.jinja",
            "additional_chat_templates/tools.jinja"]  # fmt: skip

    def snapshot_download(repository: str, revision: str, allow_patterns: list[str]) -> str:
        fetched = list(filter_repo_objects([*read, "pytorch_model.bin", "code.py"], allow_patterns=allow_patterns))
        assert (repository, revision, fetched) == ("a/b", "0" * 40, read)
        return str(own)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    config = ModelConfig(name="local", family="decoder", source="hub", location="a/b", revision="0" * 40)
    assert folder_of(config)[0] == own


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_named_pipe_is_refused_without_waiting_for_a_writer(name: str, own: Path) -> None:
    """This also holds for `export --model` and `fetch`, which load a folder that no run has hashed before."""
    (own / name).unlink()
    os.mkfifo(own / name)
    for read in (lambda: load(local_config(own), torch.float32), lambda: load_tokenizer(local_config(own))):
        with pytest.raises(Unavailable, match=name):
            read()
