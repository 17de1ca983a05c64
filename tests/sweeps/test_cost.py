"""The cost model: every evaluation counts, with its caps and beams; sizes are those of the public sets."""

from __future__ import annotations

import pytest

from sdsbench.data import catalogue, sizes
from sdsbench.runs.configuration.check import config_file
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.sweeps import cost
from sdsbench.sweeps.workload import workload
from sdsbench.tasks import base as tasks

MATH = ["protocol=lora_sb/arithmetic", "method=lora", "data.source=hub"]


def hours(*words: str) -> float:
    found = cost.modelled(compose_run(words), memory=False)
    assert found is not None
    return found.seconds / 3600


def test_an_epoch_takes_what_the_paper_printed() -> None:
    """LoRA-SB, Table 6: 11,037 s and 15,204 s an epoch on an A6000; one question is asked of each set here."""
    for model, seconds in (("mistral_7b", 11037), ("gemma2_9b", 15204)):
        assert 3600 * hours(*MATH, f"model={model}", "eval.limit=1") == pytest.approx(seconds, rel=0.08)


@pytest.mark.parametrize(
    ("method", "slower"), [("lora", 1.0), ("sds_lora", 1.0), ("dora", 1.21), ("full_ft", 3.1), ("lora_pro", 1.2)]
)
def test_a_method_slower_than_lora_costs_its_factor(method: str, slower: float) -> None:
    """Of the training alone: twice the rows less the rows once leaves evaluations out."""

    def training(name: str) -> float:
        words = ["protocol=lora_sb/arithmetic", "data.source=hub", "eval.limit=1", f"method={name}"]
        return hours(*words, "data.train_limit=40000") - hours(*words, "data.train_limit=20000")

    assert training(method) / training("lora") == pytest.approx(slower, rel=1e-6)


def test_every_set_of_every_evaluation_counts() -> None:
    training = hours(*MATH, "eval.limit=1")
    both = hours(*MATH) - training
    one = hours(*MATH, "task=gsm8k", "task.train_set=metamathqa") - training
    assert both > 3 * one > 0, "MATH has 5,000 questions with longer answers, GSM8K 1,319"
    assert hours(*MATH, "eval.untrained=true") - training > 2 * both, "a base model goes on to the cap"
    longer = hours(*MATH, "eval.untrained=true", "task.math_max_new_tokens=1024")
    assert longer - training > 1.3 * (hours(*MATH, "eval.untrained=true") - training)


def test_beams_cost_their_rows() -> None:
    words = ["protocol=sds_lora/commonsense", "method=lora", "data.source=hub"]
    assert hours(*words) > hours(*words, "task.beams=1") > hours(*words, "eval.limit=100")


def test_evaluation_after_each_epoch_counts() -> None:
    words = ["protocol=lora_sb/glue", "task=glue/qnli", "method=lora", "data.source=hub"]
    config = compose_run(words)
    path = config_file(config.model)
    assert path is not None
    work = workload(config, {})
    assert (work.rows, work.trained_passes, work.answers) == (104743, 16, 16 * 5463)
    assert hours(*words) > hours(*words, "eval.each_epoch=false")


def test_the_smallest_pass_is_one_longest_row_or_a_whole_step() -> None:
    work = workload(compose_run(MATH), {})
    assert work.batch == 32 and work.smallest_pass() == [512]
    whole = workload(compose_run([*MATH, "method=full_ft"]), {})
    assert 32 * whole.tokens < sum(whole.smallest_pass()) < 32 * 512, "adamw8bit cannot add passes up"


def test_every_public_set_has_its_size() -> None:
    """Nothing that a protocol or sweep of conf/ names is guessed as GSM8K's."""
    for task in ("metamath", "commonsense", "glue/rte", "vtab/dtd", "vision/cars"):
        tasks.lookup(task)
    missing = [name for name in catalogue.names() if name not in sizes.SIZES]
    assert not missing
