"""Scores do not depend on environment variables, the working folder, threads, or the evaluation's batch size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sdsbench.core import samples
from sdsbench.core.record import Record
from sdsbench.data import sources
from sdsbench.models.load import load
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.families import family_of
from sdsbench.tasks import base
from tests.tools import QUIET

RUN = [
    "model=micro", "task=commonsense/openbookqa", "task.scorers=[paper,likelihood]", "task.max_new_tokens=12",
    "method=lora", "method.dropout=0.1", "data.source=embedded", "data.train_limit=16", "train.batch_size=4",
    "train.max_steps=4", "eval.limit=6", "eval.untrained=false", "threads=1", "device=cpu",
]  # fmt: skip
VARIABLES = {
    "PYTHONHASHSEED": "7", "LC_ALL": "C", "LANG": "tr_TR", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    "TZ": "Pacific/Kiritimati", "PYTHONINTMAXSTRDIGITS": "640", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2",
    "TOKENIZERS_PARALLELISM": "true", "COLUMNS": "40", "USER": "another",
}  # fmt: skip


def test_environment_variables_change_no_loss_score_or_answer(tmp_path: Path) -> None:
    here = execute(compose_run([*RUN, f"output_root={tmp_path / 'here'}"]), QUIET)
    there = tmp_path / "there"
    root = Path(__file__).parents[2]
    known = {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "sdsbench", *RUN, f"output_root={there}"]
    subprocess.run(command, env=os.environ | known | VARIABLES, cwd=tmp_path, check=True, capture_output=True)
    record = Record.model_validate_json((there / here.run_id / "record.json").read_text())
    assert (record.losses, record.scores) == (here.losses, here.scores)
    for evaluation in ("openbookqa", "openbookqa_likelihood"):
        mine, theirs = (
            samples.path_of(folder / here.run_id, evaluation, "trained") for folder in (tmp_path / "here", there)
        )
        assert samples.read(mine) == samples.read(theirs)


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore torch's number of threads after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "words",
    [
        ["model=micro", "task=gsm8k", "task.max_new_tokens=24"],
        ["model=micro", "task=commonsense/openbookqa", "task.scorers=[likelihood]"],
        ["model=vit_micro", "task=vtab/dtd"],
    ],
    ids=lambda words: words[1],
)
def test_scores_do_not_depend_on_threads_and_batch_size(words: list[str], threads: None) -> None:
    """In fp32, sums in another order change the last digits of a likelihood, but no answer and no verdict."""
    config = compose_run([*words, "data.source=embedded"])
    task = base.build(config.task)
    loaded = load(config.model, torch.float32, getattr(task, "num_labels", None))
    family = family_of(task, loaded, config)
    (evaluation,) = task.evaluations()
    rows = sources.load(evaluation.dataset, evaluation.split, config.data).take(range(33))
    found = []
    for count, batch in ((1, 1), (2, 7), (1, 32), (3, 32)):
        torch.set_num_threads(count)
        found.append(family.evaluate(loaded.model.eval(), evaluation, rows, "untrained", batch, lambda _: None))
    for other in found[1:]:
        assert other.scores == found[0].scores
        for mine, theirs in zip(found[0].samples, other.samples, strict=True):
            response = mine["response"]
            likelihoods = pytest.approx(response, rel=1e-4) if isinstance(response, list) else response
            assert theirs == mine | {"response": likelihoods}, "verdicts, texts, order"
