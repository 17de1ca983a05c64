"""What surrounds a run moves no score: environment variables, the working folder, threads and batches of evaluation."""

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


def test_no_environment_variable_moves_a_run(tmp_path: Path) -> None:
    """The name, the losses, the scores and every answer, to the last digit of a likelihood."""
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
def test_scores_do_not_depend_on_threads_and_batches(words: list[str], threads: None) -> None:
    """In fp32. Sums of another order move a likelihood in its last digits, and neither an answer nor a verdict."""
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
            said = mine["response"]
            likelihoods = pytest.approx(said, rel=1e-4) if isinstance(said, list) else said
            assert theirs == mine | {"response": likelihoods}, "verdicts, texts, order"
