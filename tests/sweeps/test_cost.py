"""The cost model: every evaluation counts, with its caps and beams; sizes are those of the public sets."""

from __future__ import annotations

import pytest

from sdsbench.data import catalogue, sizes
from sdsbench.methods import base as methods
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


def test_a_methods_own_time_counts() -> None:
    lora, dora = (hours("protocol=lora_sb/arithmetic", f"method={name}", "eval.limit=1") for name in ("lora", "dora"))
    assert dora / lora == pytest.approx(methods.lookup("dora")[0].relative_time, rel=0.01) == 1.21


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


def test_the_largest_micro_batch_is_between_the_mean_and_the_longest() -> None:
    work = workload(compose_run(["protocol=lora_sb/glue", "task=glue/rte", "method=lora", "data.source=hub"]), {})
    assert 128 * work.tokens < sum(work.largest_micro_batch()) < 128 * 256 / 2
    alone = workload(compose_run(MATH), {})
    assert alone.largest_micro_batch() == [512]


def test_every_public_set_has_its_size() -> None:
    """Nothing that a protocol or sweep of conf/ names is guessed as GSM8K's."""
    for task in ("metamath", "commonsense", "glue/rte", "vtab/dtd", "vision/cars"):
        tasks.lookup(task)
    missing = [name for name in catalogue.names() if name not in sizes.SIZES]
    assert not missing
