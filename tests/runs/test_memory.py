"""The estimate of a step's memory compared with the peak counted on real tensors, and the decisions based on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.contestants import Pad, builder
from benchmarks.counted import count, kernels_of_cuda
from benchmarks.memory import measured
from benchmarks.workloads import every_example_long, random_model
from sdsbench.methods import base as methods
from sdsbench.models import load
from sdsbench.runs import memory
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.measured_memory import measured_bytes
from sdsbench.runs.memory import Batch, training_bytes
from sdsbench.sweeps import cost
from sdsbench.sweeps.cost_lines import print_costs
from sdsbench.sweeps.states import States
from sdsbench.training import step_memory
from sdsbench.training.meta_device import META
from tests.sweeps.tools import tiny_plan

METHODS = options("method")
FACTS: dict[str, dict[str, Any]] = {
    "mistral": {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 4,
                "num_hidden_layers": 6, "vocab_size": 600, "tie_word_embeddings": False},
    "gemma2": {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
               "head_dim": 16, "num_hidden_layers": 9, "vocab_size": 700, "tie_word_embeddings": True,
               "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 32,
               "sliding_window": 32},
    "roberta": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
                "vocab_size": 300, "pad_token_id": 1, "max_position_embeddings": 140, "type_vocab_size": 1,
                "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "vit": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
            "image_size": 64, "patch_size": 8, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}  # fmt: skip
TASKS = {"mistral": ("decoder", "gsm8k"), "gemma2": ("decoder", "gsm8k"), "roberta": ("encoder", "glue/rte"),
         "vit": ("vision", "vision/cars")}  # fmt: skip
BATCH = Batch((96, 70, 120, 81), 0.5)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "_COUNTED", {})
    yield


def small_config(folder: Path, kind: str, method: str, *words: str) -> RunConfig:
    """The configuration of a run on a small model of that kind, for which it writes a config.json into the folder."""
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **FACTS[kind]}))
    family, task = TASKS[kind]
    low_rank = issubclass(methods.lookup(method)[1], methods.LowRankConfig)
    rank = ["method.rank=4", "method.targets=[all-linear]"] if low_rank else []
    rank += ["method.type=lora"] if method == "peft" else []
    model = ["model=local", f"model.family={family}", f"model.location={folder}"]
    return compose_run([*model, f"task={task}", f"method={method}", *rank, "train.weight_decay=0.01", *words])


def assert_at_most_5_percent_above(estimate: int | None, measured: int) -> None:
    assert estimate is not None
    assert measured <= estimate <= 1.05 * measured


@pytest.mark.parametrize("method", METHODS)
def test_estimate_for_every_method_is_at_most_5_percent_above_the_peak(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, "mistral", method)
    estimate = training_bytes(config, BATCH, "float32")
    assert_at_most_5_percent_above(estimate, measured_bytes(config, BATCH))


@pytest.mark.parametrize("words", [(), ("train.activation_checkpointing=true",)], ids=["all kept", "recomputed"])
@pytest.mark.parametrize(("kind", "method"), [("gemma2", "lora"), ("roberta", "dora"), ("vit", "full_ft")])
def test_estimate_for_every_kind_of_model(
    kind: str, method: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, kind, method, *words)
    estimate = training_bytes(config, BATCH, "float32")
    measured = measured_bytes(config, BATCH)
    if words:  # on a CPU the inputs of blocks, which go to main memory, are counted too
        assert estimate is not None and estimate <= measured
    else:
        assert_at_most_5_percent_above(estimate, measured)


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_estimate_for_a_group_of_runs(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(tmp_path, "mistral", method)
    estimate = training_bytes(config, BATCH, "float32", runs=3)
    assert_at_most_5_percent_above(estimate, measured_bytes(config, BATCH, runs=3))


@pytest.mark.parametrize(
    ("kind", "method", "words"),
    [
        ("mistral", "lora", []),
        ("mistral", "lora_pro", ["train.activation_checkpointing=true"]),
        ("gemma2", "full_ft", ["train.optimizer=momentum"]),
        ("gemma2", "full_ft", ["train.optimizer=adamw8bit"]),
        ("roberta", "sds_lora", []),
        ("vit", "dora", []),
    ],
)
@pytest.mark.parametrize("lengths", [(8,), BATCH.lengths])
def test_estimate_from_a_few_blocks_equals_the_count_of_all_blocks(
    kind: str, method: str, words: list[str], lengths: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are equal. With eight tokens, another part of the step has the peak than with a full batch."""
    config = small_config(tmp_path, kind, method, *words)
    batch = Batch(lengths, 1.0)
    few = training_bytes(config, batch, "bfloat16")
    monkeypatch.setattr(memory, "_cached_count", lambda name, counted: counted())
    monkeypatch.setattr(step_memory, "_period", len)
    assert training_bytes(config, batch, "bfloat16") == few


def test_part_of_the_step_with_the_peak_depends_on_the_number_of_tokens(tmp_path: Path) -> None:
    """Full fine-tuning peaks at the embedding's gradient with few tokens, and at the loss with many."""
    config = small_config(tmp_path, "gemma2", "full_ft")
    facts = {"model_type": "gemma2", **FACTS["gemma2"], "vocab_size": 20000}
    largest = []
    for length in (8, 512):
        rows = Batch((length,), 1.0)

        def step_at(depth: int, rows: Batch = rows) -> step_memory.CountedStep:
            model = load.without_weights("decoder", facts, torch.bfloat16, depth=depth)
            return step_memory.step_of(*memory.assembled(config, model.train(), rows))

        peaks = step_memory._peaks(step_at, 3, 1)
        largest.append(peaks.index(max(peaks)))
    assert largest == [1, 0]


@pytest.mark.parametrize("name", ["lora", "dora", "sds_lora", "lora_xs"])
def test_estimate_at_full_model_size_equals_the_benchmarks_count(name: str) -> None:
    """benchmarks/counted.py adds up the tensors held and counts the passes of all blocks on meta tensors."""
    base, workload = random_model("llama3.2_3b", torch.bfloat16, META), every_example_long(4, 512)
    with kernels_of_cuda():
        counted = count(builder(name, base, Pad(), 32, workload)(), workload, 1)["peak_bytes"]
    config = compose_run(["model=llama3.2_3b", f"method={name}", "task=gsm8k", "method.rank=32"])
    share = workload.batch(0)[0].targets / 512
    assert training_bytes(config, Batch((512,) * 4, share), "bfloat16") == pytest.approx(counted, rel=1e-3)


@pytest.mark.parametrize("name", ["lora", "dora", "sds_lora"])
@pytest.mark.gpu
def test_estimate_is_at_most_5_percent_above_the_peak_on_a_gpu(name: str) -> None:
    """The peak is that of torch's allocator, which rounds every tensor up to 512 bytes."""
    found = measured("smollm2_135m", name, "bfloat16", 32, 8, 512, torch.device("cuda"))
    assert 1.0 <= found["ratio"] <= 1.05, found


def test_training_state_of_a_plugins_method_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Config(methods.LowRankConfig):
        name: str = "hoarder"
        kept: int = 1000

    class Hoarder(methods.lookup("lora")[0]):  # type: ignore[misc]
        def create(self, layer: Any, generator: torch.Generator) -> None:
            super().create(layer, generator)
            layer.add_training_state("kept", torch.zeros(self.config.kept))

    monkeypatch.setattr(methods.METHODS, "_values", dict(methods.METHODS._values))
    methods.register("hoarder", Config)(Hoarder)
    plain = small_config(tmp_path, "mistral", "lora")
    own = {**plain.method.model_dump(), "name": "hoarder"}
    sizes = [
        training_bytes(plain.model_copy(update={"method": Config(**own, kept=kept)}), BATCH, "bfloat16")
        for kept in (1000, 3000)
    ]
    layers = 7 * FACTS["mistral"]["num_hidden_layers"]
    assert sizes[1] - sizes[0] == 2000 * 4 * layers  # type: ignore[operator]
    assert sizes[0] - training_bytes(plain, BATCH, "bfloat16") == 1000 * 4 * layers  # type: ignore[operator]


def test_count_is_cached_until_something_that_decides_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, "mistral", "lora")
    counts = []
    monkeypatch.setattr(memory, "_count", lambda *_: counts.append(1) or 1000 + len(counts))  # type: ignore[func-returns-value]
    assert training_bytes(config, BATCH, "bfloat16") == training_bytes(config, BATCH, "bfloat16") == 1001
    monkeypatch.setattr(memory, "_COUNTED", {})  # as in another process
    assert training_bytes(config, BATCH, "bfloat16") == 1001
    train = config.train.model_copy(update={"lr": config.train.lr * 2})
    assert training_bytes(config.model_copy(update={"train": train}), BATCH, "bfloat16") == 1001, (
        "the learning rate decides no bytes"
    )
    (entry,) = [path for path in (tmp_path / "cache" / "memory").iterdir() if path.is_dir()]  # beside its lock
    (entry / "bytes.json").write_text("7")
    monkeypatch.setattr(memory, "_COUNTED", {})
    assert training_bytes(config, BATCH, "bfloat16") == 1002, "an altered cache entry is not used"
    assert training_bytes(config, BATCH, "float32") == 1003
    assert training_bytes(config, BATCH, "bfloat16", runs=2) == 1004
    assert training_bytes(small_config(tmp_path, "mistral", "lora", "method.rank=5"), BATCH, "bfloat16") == 1005
    monkeypatch.setattr(memory, "code_hashes", lambda config: {"method": "edited"})
    assert training_bytes(config, BATCH, "bfloat16") == 1006


def test_method_that_needs_values_has_no_estimate_and_is_not_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    plan = tiny_plan(tmp_path, "method=peft", "method.type=shira", "seed=0,1")
    config = plan.configuration(next(iter(plan.manifest.runs)), {})
    assert training_bytes(config, BATCH, "float32") is None
    print_costs(plan, list(States(plan, tmp_path / "runs").all()), memory=True)
    assert "memory of 2 run(s) not counted" in capsys.readouterr().out


def test_model_without_config_has_no_estimate(tmp_path: Path) -> None:
    config = small_config(tmp_path, "mistral", "lora")
    (tmp_path / "config.json").unlink()
    assert training_bytes(config, BATCH, "bfloat16") is None


@pytest.mark.parametrize("model", ("mistral_7b", "gemma2_9b"))
def test_full_fine_tuning_in_lora_sb_fits_an_a6000(model: str) -> None:
    """32 examples of 512 tokens, all of them targets, are more than any batch of MetaMathQA has."""
    config = compose_run(["protocol=lora_sb/arithmetic", f"model={model}", "method=full_ft"])
    assert config.train.batch_size == 32
    size = training_bytes(config, Batch((512,) * 32, 1.0), "bfloat16")
    assert size is not None and size + memory.RESERVE < cost.USABLE * cost.CARDS["A6000 48 GB"]


@pytest.mark.parametrize("task", ("glue/cola", "glue/rte", "glue/qnli"))
def test_lora_sb_glue_runs_fit_an_a6000(task: str) -> None:
    """LoRA-SB trained RoBERTa-large in fp32 with batch 128 on an A6000, which cannot hold 128 rows of full length."""
    config = compose_run(["protocol=lora_sb/glue", f"task={task}", "method=lora"])
    found = cost.modelled(config, memory=True)
    assert found is not None and found.bytes is not None
    assert cost.fits(found.bytes)["A6000 48 GB"]
    longest = training_bytes(config, Batch((256,) * 128, 1.0), "float32")
    assert longest is not None and longest > 48e9


def test_lora_on_mistral_fits_48_gb_and_full_fine_tuning_does_not() -> None:
    """LoRA on Mistral-7B, batch 4 of 768 tokens, fits 48 GB; full fine-tuning with fp32 Adam does not."""
    lora, full = (
        training_bytes(
            compose_run([f"method={name}", "model=mistral_7b", "task=gsm8k"]), Batch((768,) * 4, 0.5), "bfloat16"
        )
        for name in ("lora", "full_ft")
    )
    assert lora is not None and full is not None
    assert lora < 48e9 < full


@pytest.mark.parametrize("runs", [1, 3])
def test_a_pass_on_a_gpu_has_the_largest_power_of_two_of_tokens_that_fits(runs: int) -> None:
    """One byte less, and it is half as many; never less than one example of each run, never more than GPU_TOKENS."""
    config, longest = compose_run(["model=micro", "method=lora", "task=gsm8k", "data.source=embedded"]), 100
    for tokens in (1024, 4096):
        rows = Batch((longest,) * (tokens // (longest * runs)), 1.0)
        needed = memory.needed_bytes(training_bytes(config, rows, "bfloat16", runs)) / memory.USABLE
        found = [memory.tokens_that_fit(config, longest, room, "bfloat16", runs) for room in (needed, needed - 1)]
        assert found == [tokens, tokens // 2]
    assert memory.tokens_that_fit(config, longest, 1.0, "bfloat16", runs) == longest * runs
    assert memory.tokens_that_fit(config, longest, 1e15, "bfloat16", runs) == memory.GPU_TOKENS


def test_micro_tokens_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As asked; `auto`: by the device's memory on a GPU, constant on a CPU; none for adamw8bit, one pass a step."""
    words = ["model=micro", "task=gsm8k", "data.source=embedded"]
    asked, auto = compose_run([*words, "train.micro_tokens=300"]), compose_run(words)
    whole = compose_run([*words, "method=full_ft", "train.optimizer=adamw8bit"])
    card = SimpleNamespace(total_memory=1e15)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    for device, expected in (("cpu", memory.CPU_TOKENS), ("cuda", memory.GPU_TOKENS)):
        found = [memory.micro_tokens(c, 100, torch.device(device), "bfloat16") for c in (asked, auto, whole)]
        assert found == [300, expected, None]
