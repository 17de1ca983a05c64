"""Which runs vLLM may answer for, what it is given to load, and what of it is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sdsbench.core.errors import ConfigError, Refused, Unavailable
from sdsbench.evaluation.generation import GeneratedAnswer
from sdsbench.methods import base as methods
from sdsbench.methods.attach import attach
from sdsbench.models.load import load
from sdsbench.runs import vllm_answers
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.runs.vllm_answers import require_servable, served_model
from sdsbench.training.precision import Device

MICRO = ["model=micro", "task=gsm8k", "data.source=embedded", "protocol=quick"]
SIXTEEN_BITS = Device(torch.device("cuda"), "", torch.bfloat16, "", 1)
CPU = Device(torch.device("cpu"), "", torch.bfloat16, "", 1)


def adapted(*words: str):
    """(configuration, model, method, adapted layers) of `micro`."""
    config = compose_run([*MICRO, "eval.engine=vllm", *words])
    loaded, method = load(config.model, torch.float32), methods.build(config.method)
    return config, loaded, method, attach(loaded.model, method, seed=0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["model=minilm", "task=glue/rte", "protocol=quick", "data.source=embedded"], "The task generates no answers"),
        (["model=micro", "protocol=dora/commonsense"], "vLLM has no beam search"),
    ],
)
def test_tasks_that_vllm_cannot_answer_are_refused_by_configuration(words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"eval.engine='vllm': accepted: transformers with task=.*{reason}"):
        compose_run(["method=lora", *words, "eval.engine=vllm"])


def test_methods_that_vllm_cannot_serve_are_refused_before_the_first_step() -> None:
    config, _, method, layers = adapted("method=dora")
    with pytest.raises(Refused, match=r"method=dora: vLLM serves plain LoRA .* merging into 16 bits would round"):
        require_servable(config, layers, method, SIXTEEN_BITS)
    require_servable(config, layers, method, CPU)  # merged in fp32
    config, _, method, layers = adapted("method=sds_lora")
    require_servable(config, layers, method, SIXTEEN_BITS)
    config, _, method, layers = adapted("method=peft", "method.type=lora")
    with pytest.raises(Refused, match=r"method=peft: it has layers of its own"):
        require_servable(config, layers, method, CPU)


def test_in_16_bits_vllm_loads_the_base_and_the_adapter_elsewhere_merged_weights(tmp_path: Path) -> None:
    _, loaded, _, _ = adapted("method=sds_lora", "method.rank=6")
    served = served_model(loaded, SIXTEEN_BITS, tmp_path / "adapter")
    assert (served.model, served.adapter, served.dtype) == (loaded.folder, tmp_path / "adapter", "bfloat16")
    assert (json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"], served.rank) == (6, 8)
    served = served_model(loaded, CPU, tmp_path / "merged")
    assert (served.model, served.adapter, served.dtype) == (tmp_path / "merged", None, "float32")
    names = {path.name for path in served.model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


@pytest.mark.parametrize("right", [True, False])
def test_a_run_records_which_engine_answered(right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM is replaced by our own generation, or by one whose answers are all empty."""

    class Other:
        def __init__(self, own, *_: object) -> None:
            self.own = own

        def answers(self, requests):
            return self.own.answers(requests) if right else [GeneratedAnswer("", False) for _ in requests]

    monkeypatch.setattr(vllm_answers, "VllmGenerator", Other)
    monkeypatch.setattr(vllm_answers, "version_of", lambda python: "0.0")
    monkeypatch.setattr("sdsbench.runs.prepare.version_of", lambda python: "0.0")
    words = [*MICRO, "method=full_ft", "train.max_steps=60", "train.lr=3e-3", "eval.limit=20", "eval.untrained=false"]
    words += [f"output_root={tmp_path}/runs"]
    lines: list[str] = []
    context = RunContext(log=lines.append)
    record = execute(compose_run([*words, "eval.engine=vllm"]), context)
    own = execute(compose_run([*words, f"output_root={tmp_path}/own"]), context)
    assert [score.value for score in record.scores] == [score.value for score in own.scores]
    expected = "the same verdicts on 20 questions (20 of the texts are the same)"
    said = record.placing["engine"]["gsm8k"]
    assert said == f"vllm 0.0: {expected}" if right else said.endswith("of 20 questions: answered by transformers")
    assert f"gsm8k: {said}" in lines
    assert not (tmp_path / "runs" / record.run_id / "vllm").exists()


def test_an_environment_without_vllm_is_refused_before_anything_loads(tmp_path: Path) -> None:
    config = compose_run([*MICRO, "method=lora", "eval.engine=vllm", "eval.vllm_python=/nowhere/python",
                          f"output_root={tmp_path}"])  # fmt: skip
    with pytest.raises(Unavailable, match=r"eval.vllm_python=/nowhere/python does not start"):
        execute(config)
