"""Architectures that nothing here lists: trained by their own loss, with every method, and exported; or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.evaluation.generation import check_generation
from sdsbench.evaluation.likelihood import continuation_log_likelihoods
from sdsbench.models.architecture import built_layers
from sdsbench.models.conv1d import with_conv1d_, with_linear_
from sdsbench.models.load import load
from sdsbench.models.model_config import ModelConfig
from sdsbench.models.positions import learned_positions
from sdsbench.training.causal import CausalObjective
from sdsbench.training.tokens import EncodedText
from tests.methods.tiny import METHODS
from tests.models.folders import NEW, OTHERS, model_folder, random_model

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
EXAMPLES = [
    EncodedText(tuple(torch.randint(3, 1000, (length,), generator=GENERATOR).tolist()), first)
    for length, first in ((40, 5), (9, 3), (23, 10))
]
STATE_SPACES = {"mamba"}


def own_loss(model: torch.nn.Module, example: EncodedText) -> float:
    """As transformers computes it from labels, summed."""
    ids = torch.tensor([example.ids])
    labels = ids.masked_fill(torch.arange(example.length)[None] < example.first_target, -100)
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels, use_cache=False).loss) * example.targets


@pytest.mark.parametrize("kind", [*NEW, *OTHERS])
def test_the_loss_is_the_models_own(kind: str) -> None:
    model = random_model(kind, {**NEW, **OTHERS}[kind])
    objective = CausalObjective(None, None, 100)
    packed = float(objective.losses(model, [EXAMPLES], CPU)[0].detach()) if kind in NEW else None
    objective.check(model, EXAMPLES, CPU)
    assert objective.padded == (kind in OTHERS)
    own = sum(own_loss(model, example) for example in EXAMPLES)
    assert float(objective.loss(model, EXAMPLES, CPU).detach()) == pytest.approx(own, rel=1e-6)
    assert packed is None or packed == pytest.approx(own, rel=1e-6)
    assert objective.positions(model, EXAMPLES, CPU) == (3 * 40 if objective.padded else 72)
    if kind in STATE_SPACES:
        with pytest.raises(Unavailable, match=r"mamba model cannot answer in batches here: .* off by \d"):
            check_generation(model, EXAMPLES)
    else:
        check_generation(model, EXAMPLES)


def test_gpt2_is_computed_with_linear_layers_and_saved_as_it_was(tmp_path: Path) -> None:
    """Bit by bit the files of the hub's layout, and the loss of transformers' own layers to rounding."""
    folder = model_folder(tmp_path / "model", "gpt2")
    model = load(ModelConfig(name="own", family="decoder", source="folder", location=str(folder)), torch.float32).model
    layers = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert layers["transformer.h.0.attn.c_attn"].weight.shape == (96, 32), "outputs x inputs, not as in the files"
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    for example in EXAMPLES:
        assert own_loss(model, example) == pytest.approx(own_loss(theirs, example), rel=1e-6)
    with_conv1d_(model).save_pretrained(tmp_path / "saved")
    before, after = (load_file(where / "model.safetensors") for where in (folder, tmp_path / "saved"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_texts_beyond_the_positions_that_a_model_learned() -> None:
    """Training rows are refused before anything trains; a question loses its beginning, and that is counted."""
    short = random_model("gpt2", {**NEW["gpt2"], "n_positions": 32})
    with pytest.raises(Unavailable, match=r"a training row has 40 tokens; accepted: at most 32.*train\.max_length"):
        CausalObjective(None, None, 100).check(short, EXAMPLES, CPU)
    cut: dict[int, int] = {}
    pairs = [("x" * 40, " yes"), ("no", " yes"), ("x" * 28, " yes")]
    found = continuation_log_likelihoods(short, Letters(), pairs, 2, on_cut=cut.__setitem__)
    assert cut == {0: 12} and found[0] == pytest.approx(found[2], rel=1e-6)
    assert learned_positions(random_model("gptj", OTHERS["gptj"])) is None


class Shifted(torch.nn.Module):
    """A model whose own loss no layout gives: its logits depend on the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = random_model("granite", OTHERS["granite"])
        self.config, self.dtype = self.inner.config, torch.float32
        self.get_input_embeddings = self.inner.get_input_embeddings

    def forward(self, attention_mask: torch.Tensor | None = None, **inputs: object) -> object:
        output = self.inner(**inputs)
        output.logits = output.logits * (1.05 if attention_mask is not None else 1.0)
        return output


def test_what_no_layout_computes_is_refused_with_the_figure() -> None:
    objective = CausalObjective(None, None, 100)
    with pytest.raises(Unavailable, match=r"granite model cannot be trained here: .* is [\d.]+ % off its own loss"):
        objective.check(Shifted(), EXAMPLES, CPU)
    with pytest.raises(Unavailable, match="the token 1024; accepted: below 1024"):
        objective.check(random_model("qwen2", NEW["qwen2"]), [EncodedText((5, 1024), 0)], CPU)


class Letters:
    """A tokenizer of one token a letter, without a beginning."""

    bos_token = bos_token_id = eos_token_id = None

    def __call__(self, texts: list[str], add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def test_likelihoods_of_padded_models_are_their_own() -> None:
    model = random_model("granite", OTHERS["granite"])
    pairs = [("which is it?", " this"), ("which is it?", " that one"), ("no", " o")]
    found = continuation_log_likelihoods(model, Letters(), pairs, 2, padded=True)
    for (prompt, continuation), (likelihood, _) in zip(pairs, found, strict=True):
        ids = tuple(map(ord, prompt + continuation))
        assert -likelihood == pytest.approx(own_loss(model, EncodedText(ids, len(prompt))), rel=1e-5)
    packed = continuation_log_likelihoods(model, Letters(), pairs, 2)
    assert packed[0][0] != pytest.approx(found[0][0], rel=1e-3), "so that the choice matters"


FAST = ["task=gsm8k", "data.source=embedded", "data.train_limit=16", "train.max_steps=2", "eval.limit=1",
        "eval.untrained=false", "task.max_new_tokens=2", "threads=1", "model=local", "train.batch_size=4"]  # fmt: skip


def trained(folder: Path, root: Path, method: str) -> Path:
    options = [] if method == "full_ft" else ["method.rank=4"]
    if method == "sds_lora":
        options.append("method.warmup_steps=1")
    save = "train.save=all" if method == "full_ft" else "train.save=adapter"
    words = [*FAST, f"model.location={folder}", f"method={method}", *options, save, f"output_root={root}"]
    assert main(words) == 0
    (run,) = root.iterdir()
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "done" and record["losses"]["steps"] == 2
    return run


@pytest.mark.parametrize(("kind", "method"), list(zip(NEW, METHODS, strict=False)))
def test_one_method_each_from_the_command_line(kind: str, method: str, tmp_path: Path) -> None:
    run = trained(model_folder(tmp_path / "model", kind), tmp_path / "runs", method)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert any((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", NEW)
def test_every_method_from_the_command_line(kind: str, method: str, tmp_path: Path) -> None:
    test_one_method_each_from_the_command_line(kind, method, tmp_path)


def test_a_padded_model_trains_alone(tmp_path: Path) -> None:
    """From the command line, and no group of runs is made of it: they would lie end to end."""
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.prepare import attach_method
    from sdsbench.runs.prepare import load as load_run
    from sdsbench.training.side_by_side import Member, SideBySide

    folder = model_folder(tmp_path / "model", "granite")
    run = trained(folder, tmp_path / "runs", "lora")
    assert json.loads((run / "record.json").read_text())["tokens"]["padding_share"] > 0
    config = compose_run([*FAST, f"model.location={folder}", "method=lora", "method.rank=4"])
    loaded = load_run(config, load)
    training, state, _, _ = attach_method(config, loaded)
    with pytest.raises(ConfigError, match="padded batches"):
        SideBySide(loaded.model.model, [Member(training, state)])


@pytest.mark.parametrize(("kind", "family", "task"), [
    ("stablelm", "decoder", "gsm8k"), ("gptj", "decoder", "gsm8k"), ("distilbert", "encoder", "glue/rte"),
    ("modernbert", "encoder", "glue/mnli"),
])  # fmt: skip
def test_memory_is_counted_of_any(
    kind: str, family: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.memory import Batch, training_bytes

    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path / "cache"))
    folder = model_folder(tmp_path / "model", kind)
    words = ["model=local", f"model.location={folder}", f"model.family={family}", f"task={task}", "method=lora"]
    config = compose_run([*words, "method.rank=4", "data.source=embedded"])
    small, large = (training_bytes(config, Batch((length,) * 4, 0.5), "float32") for length in (16, 32))
    assert small is not None and large is not None and small < large


def test_an_estimate_pads_what_a_run_pads() -> None:
    """Found out before any weights are here, of a small random model with the configuration's other settings."""
    from transformers import AutoConfig

    from sdsbench.runs.memory import _small_model_needs_padding

    for kind, settings in {**NEW, **OTHERS}.items():
        assert _small_model_needs_padding(AutoConfig.for_model(kind, **settings).to_dict()) == (kind in OTHERS), kind


def test_the_layers_are_found_without_weights() -> None:
    for kind, settings in NEW.items():
        model = with_linear_(random_model(kind, settings))
        real = {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        assert built_layers({"model_type": kind, **settings}, "decoder") == real
