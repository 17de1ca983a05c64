"""Model folders that are not what they are called: one line with file and reason, exit code 3, before training."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdsbench.__main__ import main
from sdsbench.core.errors import Unavailable
from sdsbench.models.load import load, load_tokenizer
from sdsbench.models.model_config import ModelConfig
from sdsbench.models.model_folder import fingerprint
from tests.models.folders import MICRO, model_folder

RUN = ["method=lora", "task=gsm8k", "data.source=embedded", "data.train_limit=8", "train.max_steps=1", "eval.limit=1",
       "eval.untrained=false"]  # fmt: skip


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MICRO, tmp_path / "own"))


def facts(folder: Path, name: str = "config.json", **changed: object) -> None:
    """Change keys of a JSON file; None takes a key out."""
    kept = {**json.loads((folder / name).read_text()), **changed}
    (folder / name).write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def index(folder: Path, *names: str) -> None:
    """The weights in a shard, and an index that names these files."""
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    keys = list(load_file(folder / "model-1.safetensors"))
    where = {key: names[i % len(names)] for i, key in enumerate(keys)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def outside(folder: Path) -> None:
    index(folder, "../weights.safetensors")
    (folder / "model-1.safetensors").rename(folder.parent / "weights.safetensors")


def pickled(folder: Path) -> None:
    index(folder, "pytorch_model.bin")
    torch.save(load_file(folder / "model-1.safetensors"), folder / "pytorch_model.bin")


def only_bin(folder: Path) -> None:
    pickled(folder)
    (folder / "model-1.safetensors").unlink()
    (folder / "model.safetensors.index.json").unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "added_tokens.json")


def renamed(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("model.layers.1.", "model.blocks.1."): tensor for key, tensor in held.items()}


def wider(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return held | {"model.norm.weight": torch.ones(7)}


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "index outside": (outside, "names '../weights.safetensors'"),
    "index at a pickle": (pickled, "names 'pytorch_model.bin'"),
    "only pickles": (only_bin, "only pickled weights"),
    "lost shard": (lambda f: index(f, "model-1.safetensors", "model-2.safetensors"), "model-2.safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "it has none"),
    "cut weights": (cut, "own/model.safetensors: cannot be read"),
    "pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "git lfs pull",
    ),
    "quantised": (lambda f: facts(f, quantization_config={"quant_method": "gptq"}), "quantised"),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "an adapter"),
    "weights by another name": (lambda f: facts(f, transformers_weights="x.safetensors"), "transformers_weights"),
    "renamed": (lambda f: tensors(f, renamed), "missing: model.layers.1.input_layernorm.weight"),
    "another shape": (lambda f: tensors(f, wider), "of another shape: model.norm.weight ([7]"),
    "more blocks": (lambda f: facts(f, num_hidden_layers=9), "missing: model.layers."),
    "fewer blocks": (lambda f: facts(f, num_hidden_layers=1), "unexpected: model.layers."),
    "a thousand million blocks": (lambda f: facts(f, num_hidden_layers=10**9), "num_hidden_layers=1000000000"),
    "a huge vocabulary": (lambda f: facts(f, vocab_size=10**12), "declares"),
    "a name for each of 10^9 labels": (lambda f: facts(f, num_labels=10**9), "num_labels=1000000000"),
    "text for a number": (lambda f: facts(f, hidden_size="wide"), "hidden_size"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "own/config.json: cannot be read: JSONDecodeError"),
    "deep JSON": (lambda f: (f / "config.json").write_text("[" * 100_000), "own/config.json: cannot be read"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "a JSON object"),
    "unknown type": (lambda f: facts(f, model_type="no_such"), "no_such"),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "own: cannot be read"),
    "pipe": (pipe, "added_tokens.json: accepted: a file"),
    "no end": (lambda f: facts(f, "tokenizer_config.json", eos_token=None), "no eos_token"),
    "another class": (
        lambda f: facts(f, "tokenizer_config.json", tokenizer_class="CLIPTokenizer"),
        "own: cannot be read: Exception: Unk",
    ),
    "pad outside": (lambda f: facts(f, "tokenizer_config.json", pad_token="<new>"), "pad_token has the number 1024"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_line(fault: str, micro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, said = FAULTS[fault]
    damage(micro)
    words = [*RUN, "model=local", f"model.location={micro}", f"output_root={tmp_path / 'runs'}"]
    assert main(words) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and len(line) < 1000
    assert not any(path.stat().st_size for path in tmp_path.glob("runs/*/metrics.jsonl")), "nothing was trained"


def test_no_hashed_file_no_fingerprint(micro: Path) -> None:
    whole = fingerprint(micro)
    facts(micro, "generation_config.json", repetition_penalty=1.3)
    assert fingerprint(micro) != whole
    index(micro, "model-1.safetensors")
    shards = fingerprint(micro)
    (micro / "model.safetensors.index.json").unlink()
    with pytest.raises(Unavailable, match="it has none"):
        fingerprint(micro)
    assert shards != whole


def local(folder: Path, family: str = "decoder") -> ModelConfig:
    return ModelConfig(name="local", family=family, source="folder", location=str(folder), revision=None)


def test_answers_follow_no_setting_of_the_folder(micro: Path) -> None:
    """Beam search reads end tokens of generation_config.json; penalties in it change no answer."""
    from sdsbench.evaluation.generation import Generator, Request

    wanted = [Request("Tom has 12 apples. He buys 3 more.", 12, (), 3)]
    plain = load(local(micro), torch.float32)
    answers = Generator(plain.model, plain.tokenizer, 1).answer(wanted)
    facts(micro, "generation_config.json", repetition_penalty=5.0, no_repeat_ngram_size=1, length_penalty=-9.0,
          early_stopping=True, suppress_tokens=[4, 5, 6], eos_token_id=[2, 7])  # fmt: skip
    changed = load(local(micro), torch.float32)
    assert Generator(changed.model, changed.tokenizer, 1).ends == {2, 7}
    changed.model.generation_config.eos_token_id = 2
    assert Generator(changed.model, changed.tokenizer, 1).answer(wanted) == answers


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_only_a_new_head_may_be_missing(kind: str, tmp_path: Path) -> None:
    """A head of another size, or none, is drawn from the run's seed; a hole in the base is refused."""
    from sdsbench.models.head import head_parameters, initialise_head

    folder = model_folder(tmp_path, kind)
    loaded = load(local(folder, "encoder"), torch.float32, 3)
    initialise_head(loaded.model, 0)
    head = head_parameters(loaded.model)
    assert head["classifier.bias" if kind != "roberta" else "classifier.out_proj.bias"].shape == (3,)
    held = load_file(folder / "model.safetensors")
    base = {key: tensor for key, tensor in held.items() if key not in head}
    save_file(base | {"cls.predictions.bias": torch.zeros(9)}, folder / "model.safetensors", {"format": "pt"})
    load(local(folder, "encoder"), torch.float32, 2)
    hole = next(key for key in base if ".1." in key)
    save_file({key: t for key, t in base.items() if key != hole}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Unavailable, match=f"missing: {hole}"):
        load(local(folder, "encoder"), torch.float32, 2)


def test_code_beside_the_weights_is_not_run(micro: Path) -> None:
    (micro / "theirs.py").write_text(f"from pathlib import Path\nPath({str(micro / 'ran')!r}).touch()\n")
    names = {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}
    facts(micro, auto_map=names)
    facts(micro, "tokenizer_config.json", auto_map={"AutoTokenizer": ["theirs.T", None]})
    assert load(local(micro), torch.float32).model.config.model_type == "llama"
    assert not (micro / "ran").exists()


def test_every_file_that_loading_may_read_is_in_the_fingerprint(micro: Path) -> None:
    """A change of each, a new one, and one that lies in another folder."""
    (micro / "additional_chat_templates").mkdir()
    names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
             "vocab.json", "merges.txt", "spiece.model", "own.jinja", "preprocessor_config.json",
             "additional_chat_templates/chat_template.jinja", "model-2.safetensors"]  # fmt: skip
    seen = {fingerprint(micro)}
    for name in names:
        held = (micro / name).read_bytes() if (micro / name).exists() else b""
        (micro / name).write_bytes(held + b" ")
        seen.add(fingerprint(micro))
    assert len(seen) == 1 + len(names)
    (micro / "additional_chat_templates" / "chat_template.jinja").rename(micro / "chat_template.jinja")
    assert fingerprint(micro) not in seen


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pipe_among_the_files_is_waited_for_by_nobody(name: str, micro: Path) -> None:
    """Also where no run has hashed the folder before: `export --model`, `fetch`."""
    (micro / name).unlink()
    os.mkfifo(micro / name)
    for read in (lambda: load(local(micro), torch.float32), lambda: load_tokenizer(local(micro))):
        with pytest.raises(Unavailable, match=name):
            read()
