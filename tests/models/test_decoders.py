"""Architectures that the project does not list: trained by their own loss with every method, exported, or refused."""

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
from tests.models.folders import PACKED_DECODERS, PADDED_DECODERS, STATE_SPACES, model_folder, random_model

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
EXAMPLES = [
    EncodedText(tuple(torch.randint(3, 1000, (length,), generator=GENERATOR).tolist()), first)
    for length, first in ((40, 5), (9, 3), (23, 10))
]


def own_loss(model: torch.nn.Module, example: EncodedText) -> float:
    """The loss that transformers computes from labels, summed over the target tokens."""
    ids = torch.tensor([example.ids])
    labels = ids.masked_fill(torch.arange(example.length)[None] < example.first_target, -100)
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels, use_cache=False).loss) * example.targets


@pytest.mark.parametrize("kind", [*PACKED_DECODERS, *PADDED_DECODERS])
def test_training_loss_equals_the_loss_of_transformers(kind: str) -> None:
    model = random_model(kind, {**PACKED_DECODERS, **PADDED_DECODERS}[kind])
    objective = CausalObjective(None, None, 100)
    packed = float(objective.losses(model, [EXAMPLES], CPU)[0].detach()) if kind in PACKED_DECODERS else None
    objective.check(model, EXAMPLES, CPU)
    assert objective.padded == (kind in PADDED_DECODERS)
    own = sum(own_loss(model, example) for example in EXAMPLES)
    assert float(objective.loss(model, EXAMPLES, CPU).detach()) == pytest.approx(own, rel=1e-6)
    assert packed is None or packed == pytest.approx(own, rel=1e-6)
    assert objective.positions(model, EXAMPLES, CPU) == (3 * 40 if objective.padded else 72)
    if kind in STATE_SPACES:
        with pytest.raises(Unavailable, match=r"mamba model cannot answer in batches here: .* off by \d"):
            check_generation(model, EXAMPLES)
    else:
        check_generation(model, EXAMPLES)


def test_gpt2_computes_with_linear_layers_and_saves_conv1d_files(tmp_path: Path) -> None:
    """The saved files equal the hub's bit by bit; the loss equals that of transformers' own layers up to rounding."""
    folder = model_folder(tmp_path / "model", "gpt2")
    model = load(ModelConfig(name="own", family="decoder", source="folder", location=str(folder)), torch.float32).model
    layers = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert layers["transformer.h.0.attn.c_attn"].weight.shape == (96, 32), (
        "outputs x inputs; the files hold the transpose"
    )
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    for example in EXAMPLES:
        assert own_loss(model, example) == pytest.approx(own_loss(theirs, example), rel=1e-6)
    with_conv1d_(model).save_pretrained(tmp_path / "saved")
    before, after = (load_file(where / "model.safetensors") for where in (folder, tmp_path / "saved"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_rows_beyond_learned_positions_are_refused_and_questions_cut() -> None:
    """Training rows are refused before training; a question loses its first tokens, and their number is reported."""
    short = random_model("gpt2", {**PACKED_DECODERS["gpt2"], "n_positions": 32})
    with pytest.raises(Unavailable, match=r"a training row has 40 tokens; accepted: at most 32.*train\.max_length"):
        CausalObjective(None, None, 100).check(short, EXAMPLES, CPU)
    cut: dict[int, int] = {}
    pairs = [("x" * 40, " yes"), ("no", " yes"), ("x" * 28, " yes")]
    found = continuation_log_likelihoods(short, LetterTokenizer(), pairs, 2, on_cut=cut.__setitem__)
    assert cut == {0: 12} and found[0] == pytest.approx(found[2], rel=1e-6)
    assert learned_positions(random_model("gptj", PADDED_DECODERS["gptj"])) is None


class BatchDependentModel(torch.nn.Module):
    """A model whose loss no batch layout reproduces: its logits differ where an attention mask is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = random_model("granite", PADDED_DECODERS["granite"])
        self.config, self.dtype = self.inner.config, torch.float32
        self.get_input_embeddings = self.inner.get_input_embeddings

    def forward(self, attention_mask: torch.Tensor | None = None, **inputs: object) -> object:
        output = self.inner(**inputs)
        output.logits = output.logits * (1.05 if attention_mask is not None else 1.0)
        return output


def test_loss_that_no_layout_reproduces_is_refused_with_its_error() -> None:
    objective = CausalObjective(None, None, 100)
    with pytest.raises(Unavailable, match=r"granite model cannot be trained here: .* is [\d.]+ % off its own loss"):
        objective.check(BatchDependentModel(), EXAMPLES, CPU)
    with pytest.raises(Unavailable, match="the token 1024; accepted: below 1024"):
        objective.check(random_model("qwen2", PACKED_DECODERS["qwen2"]), [EncodedText((5, 1024), 0)], CPU)


class LetterTokenizer:
    """A tokenizer with one token per letter and no token for the beginning of a text."""

    bos_token = bos_token_id = eos_token_id = None

    def __call__(self, texts: list[str], add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def test_likelihoods_of_padded_models_equal_their_own_loss() -> None:
    model = random_model("granite", PADDED_DECODERS["granite"])
    pairs = [("which is it?", " this"), ("which is it?", " that one"), ("no", " o")]
    found = continuation_log_likelihoods(model, LetterTokenizer(), pairs, 2, padded=True)
    for (prompt, continuation), (likelihood, _) in zip(pairs, found, strict=True):
        ids = tuple(map(ord, prompt + continuation))
        assert -likelihood == pytest.approx(own_loss(model, EncodedText(ids, len(prompt))), rel=1e-5)
    packed = continuation_log_likelihoods(model, LetterTokenizer(), pairs, 2)
    assert packed[0][0] != pytest.approx(found[0][0], rel=1e-3), "packing would give other likelihoods"


FAST = ["task=gsm8k", "data.source=embedded", "data.train_limit=16", "train.max_steps=2", "eval.limit=1",
        "eval.untrained=false", "task.max_new_tokens=2", "threads=1", "model=local", "train.batch_size=4"]  # fmt: skip


def train_run(folder: Path, root: Path, method: str) -> Path:
    """The folder of a two-step run on the model folder, made through the command line."""
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


@pytest.mark.parametrize(("kind", "method"), list(zip(PACKED_DECODERS, METHODS, strict=False)))
def test_decoder_trains_with_one_method_and_exports(kind: str, method: str, tmp_path: Path) -> None:
    run = train_run(model_folder(tmp_path / "model", kind), tmp_path / "runs", method)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert any((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.slow  # 135 cases of 1 s
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", PACKED_DECODERS)
def test_decoder_trains_with_every_method_and_exports(kind: str, method: str, tmp_path: Path) -> None:
    test_decoder_trains_with_one_method_and_exports(kind, method, tmp_path)


def test_padded_model_trains_alone_and_joins_no_group(tmp_path: Path) -> None:
    """A run from the command line works; a group of runs is refused, because a group packs the rows of its members."""
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.prepare import attach_method
    from sdsbench.runs.prepare import load as load_run
    from sdsbench.training.side_by_side import Member, SideBySide

    folder = model_folder(tmp_path / "model", "granite")
    run = train_run(folder, tmp_path / "runs", "lora")
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
def test_memory_estimate_of_an_unlisted_architecture_grows_with_length(
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


def test_estimate_and_run_agree_on_padding() -> None:
    """The estimate needs no weights: it measures a small random model that keeps the configuration's other settings."""
    from transformers import AutoConfig

    from sdsbench.runs.memory import _small_model_needs_padding

    for kind, settings in {**PACKED_DECODERS, **PADDED_DECODERS}.items():
        assert _small_model_needs_padding(AutoConfig.for_model(kind, **settings).to_dict()) == (
            kind in PADDED_DECODERS
        ), kind


def test_layers_found_from_the_configuration_equal_those_of_the_model() -> None:
    for kind, settings in PACKED_DECODERS.items():
        model = with_linear_(random_model(kind, settings))
        real = {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        assert built_layers({"model_type": kind, **settings}, "decoder") == real
