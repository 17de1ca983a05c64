"""`sdsbench compare` as a whole: what is refused, what is planned, what it ends with, and that it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdsbench
from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError
from sdsbench.studies.comparison import budget
from sdsbench.studies.comparison.comparison import Question
from sdsbench.sweeps import plan as plans

WORDS = ["model=micro", "task=gsm8k", "data.source=embedded", "train.max_steps=4", "data.train_limit=40",
         "eval.limit=6", "eval.untrained=false", "task.max_new_tokens=8", "threads=1", "device=cpu"]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "methods", "reference", "wrong"),
    [
        ((), ("lora",), "lora", "--methods"),
        ((), ("lora", "lara"), "lora", "--methods"),
        ((), ("lora", "dora"), "pissa", "--reference"),
        (("method=dora",), ("lora", "dora"), "lora", "method"),
        (("seed=3",), ("lora", "dora"), "lora", "seed"),
        (("train.lr=1e-3",), ("lora", "dora"), "lora", "train.lr"),
    ],
)
def test_what_a_comparison_sets_itself_is_refused(
    words: tuple[str, ...], methods: tuple[str, ...], reference: str, wrong: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Question(words, methods, reference)
    assert [problem.key for problem in refused.value.problems] == [wrong]


def test_a_run_from_python_is_the_run_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "method=lora", "train.max_steps=2"]
    record = sdsbench.run(words)
    assert record.status == "done" and record.run_id in record._repr_html_()
    capsys.readouterr()
    assert main(words) == 0
    assert f"run {record.run_id}" in capsys.readouterr().out
    assert list(sdsbench.load_runs().run_id) == [record.run_id]
    with pytest.raises(ConfigError, match="a task of one run"):
        sdsbench.run(["task=glue", "model=minilm"])


@pytest.mark.slow  # seventeen runs of four steps in one worker, about two minutes of one core
def test_a_comparison_from_its_question_to_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "EFFORTS", budget.EFFORTS[:1])
    command = ["compare", *WORDS, "--methods", "lora,dora", "--budget", "2h", "--name", "mine"]
    assert main([*command, "--plan-only"]) == 0
    said = capsys.readouterr().out
    assert "for each of 2 methods: 3 rates x 1 tuning seed, then 3 fresh seeds" in said
    manifest = plans.read(tmp_path / "results/plans/mine").manifest
    assert {cell.extend for cell in manifest.cells.values()} == {budget.EXTEND}
    assert len({tuple(cell.grid) for cell in manifest.cells.values()}) == 1, "one grid for all methods"

    assert main(command) == 0
    said = capsys.readouterr().out
    assert "goes on with plan" in said and "report: results/comparisons/mine/report/index.html" in said
    page = (tmp_path / "results/comparisons/mine/report/index.html").read_text()
    answer = next(line for line in said.splitlines() if line.startswith("micro: GSM8K") or "GSM8K" in line)
    assert answer.split(":")[0].split(",")[0] in page

    assert main(command) == 0, "nothing is left to run; the answer is the same"
    assert answer in capsys.readouterr().out
