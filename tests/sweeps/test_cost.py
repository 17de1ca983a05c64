"""The cost model: training at published speed, every evaluation with its caps and beams, sizes of the public sets."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdsbench.__main__ import main
from sdsbench.core.clock import about
from sdsbench.data import catalogue, sizes
from sdsbench.runs.configuration.combinations import config_file, known_architecture
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.sweeps import cost, step_time
from sdsbench.sweeps.overview import print_overview
from sdsbench.sweeps.workload import workload
from sdsbench.tasks import base as tasks
from tests.sweeps.tools import put_record, tiny_plan

MATH = ["protocol=lora_sb/arithmetic", "method=lora", "data.source=hub"]


def hours(*words: str) -> float:
    found = cost.modelled(compose_run(words), memory=False)
    assert found is not None
    return found.seconds / 3600


def test_epoch_takes_the_time_that_the_paper_reports() -> None:
    """LoRA-SB, Table 6: 11,037 s and 15,204 s per epoch on an A6000. Here each set has one question."""
    for model, seconds in (("mistral_7b", 11037), ("gemma2_9b", 15204)):
        assert 3600 * hours(*MATH, f"model={model}", "eval.limit=1") == pytest.approx(seconds, rel=0.08)


@pytest.mark.parametrize(
    ("method", "slower"), [("lora", 1.0), ("sds_lora", 1.0), ("dora", 1.21), ("full_ft", 3.1), ("lora_pro", 1.2)]
)
def test_slower_methods_cost_their_factor(method: str, slower: float) -> None:
    """The factor holds for training alone: the difference of two row counts leaves evaluations out."""

    def training(name: str) -> float:
        words = ["protocol=lora_sb/arithmetic", "data.source=hub", "eval.limit=1", f"method={name}"]
        return hours(*words, "data.train_limit=40000") - hours(*words, "data.train_limit=20000")

    assert training(method) / training("lora") == pytest.approx(slower, rel=1e-6)


def test_every_set_of_every_evaluation_is_counted() -> None:
    training = hours(*MATH, "eval.limit=1")
    both = hours(*MATH) - training
    one = hours(*MATH, "task=gsm8k", "task.train_set=metamathqa") - training
    assert both > 3 * one > 0, "MATH has 5,000 questions with longer answers, GSM8K 1,319"
    assert hours(*MATH, "eval.untrained=true") - training > 2 * both, "a base model generates up to the cap"
    longer = hours(*MATH, "eval.untrained=true", "task.math_max_new_tokens=1024")
    assert longer - training > 1.3 * (hours(*MATH, "eval.untrained=true") - training)


def test_each_beam_costs_like_a_row() -> None:
    words = ["protocol=sds_lora/commonsense", "method=lora", "data.source=hub"]
    assert hours(*words) > hours(*words, "task.beams=1") > hours(*words, "eval.limit=100")


def test_evaluations_after_each_epoch_are_counted() -> None:
    words = ["protocol=lora_sb/glue", "task=glue/qnli", "method=lora", "data.source=hub"]
    config = compose_run(words)
    path = config_file(config.model)
    assert path is not None
    work = workload(config, {})
    assert (work.trained_passes, work.answers) == (16, 16 * 5463)
    assert work.steps == math.ceil(config.train.epochs * 104743 / config.train.batch_size)
    assert hours(*words) > hours(*words, "eval.each_epoch=false")


def test_scores_of_interpolated_weights_are_counted() -> None:
    training = hours(*MATH, "eval.limit=1")
    once, thrice = (hours(*MATH, *more) - training for more in ((), ("eval.along=[0.5,1]",)))
    assert thrice == pytest.approx(3 * once, rel=0.01)


def test_smallest_pass_is_one_longest_row_or_a_whole_step() -> None:
    work = workload(compose_run(MATH), {})
    assert work.batch == 32 and work.smallest_pass() == [512]
    whole = workload(compose_run([*MATH, "method=full_ft"]), {})
    assert 32 * whole.tokens < sum(whole.smallest_pass()) < 32 * 512, (
        "adamw8bit cannot accumulate gradients over passes"
    )


def test_every_public_data_set_has_a_known_size() -> None:
    """Otherwise the size of a set that conf/ names would be guessed to be that of GSM8K."""
    for task in ("metamath", "commonsense", "glue/rte", "vtab/dtd", "vision/cars"):
        tasks.lookup(task)
    own = {"pairs", "labels"}  # a user's own files, whose sizes are unknown before they are read
    missing = [name for name in catalogue.names() if name not in {*sizes.SIZES, *own}]
    assert not missing


def test_plan_prints_time_and_disk_before_its_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On CPUs, a measured step gives the time of all work and of the longest run, with two significant digits."""
    monkeypatch.chdir(tmp_path)
    words = ["model=micro", "data.source=embedded", "device=cpu", "threads=1", "train.max_steps=10,20", "eval.limit=4"]
    assert main(["plan", *words]) == 0
    out = capsys.readouterr().out
    number = r"\d+(\.\d+)?"
    assert re.search(rf"on this CPU, by a short step measured now.*: {number} (s|min) of work left, the longest", out)
    assert re.search(rf"disk: at most {number} MB", out) and "eval.also" not in out
    assert main(["plan", *words, "eval.also=[rte]", "--name", "second_scores"]) == 0
    assert "not in it: what eval.also and eval.text score" in capsys.readouterr().out
    assert re.search(rf"GPU-hours left, the longest run {number} s", out)


def test_measured_step_is_scaled_to_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of one and of two blocks give that of all blocks; the simulated timer depends only on their number."""
    config = compose_run([*MATH, "model=mistral_7b", "device=cpu", "dtype=bfloat16"])
    known = known_architecture(config.model)
    assert known is not None
    per_block, fixed = 0.25, 3.0

    def timed(model: Any, *_: object) -> tuple[float, float]:
        seconds = fixed + per_block * model.config.num_hidden_layers
        return seconds, 2 * seconds

    monkeypatch.setattr(step_time, "_timed", timed)
    monkeypatch.setattr(step_time, "_filled", lambda model: model)
    monkeypatch.setattr(step_time.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    speed = step_time.cpu_speed(config, known, workload(config, known.config_json))
    weights, whole = cost.passed_weights(config, known), fixed + per_block * 32
    assert speed is not None
    assert speed.rate == pytest.approx(4 * weights / whole)
    assert speed.bandwidth == pytest.approx(2 * weights / (2 * whole))
    monkeypatch.setattr(step_time.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    step_time._seconds.cache_clear()
    assert step_time.cpu_speed(config, known, workload(config, known.config_json)) is None, (
        "the model does not fit into memory"
    )
    assert cost.measured_here(compose_run([*MATH, "model=mistral_7b"])) is None, (
        "without device=cpu, such a model is not measured on a CPU"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.234, "0.23 s"), (99, "99 s"), (100, "1.7 min"), (5999, "1.7 h"), (360000, "4.2 days"), (1e8, "1,200 days")],
)
def test_durations_have_two_significant_digits(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_tiny_plan_states_no_exponent_and_a_finished_plan_no_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    capsys.readouterr()
    where = {"output_root": str(tmp_path / "runs")}
    print_overview(plan, where, everything=True, memory=True)
    out = capsys.readouterr().out
    assert "less than 0.01 GPU-hours left" in out and "e-0" not in out.partition("GPU-hours")[0]
    assert "  fits A6000 48 GB, 24 GB (RTX 3090/4090), 80 GB (A100/H100)\n" in out and out.startswith("1 run: ")
    (run,) = plan.manifest.runs
    put_record(plan, tmp_path / "runs", run)
    print_overview(plan, where, everything=True)
    out = capsys.readouterr().out
    assert out.startswith("1 run: 1 done\n") and "GPU-hours" not in out and "estimate" not in out
