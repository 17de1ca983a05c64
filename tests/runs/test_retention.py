"""What the base model could do before, measured beside the task; weights on the way back to the base."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from sdsbench.core import samples
from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.core.record import Record, Score
from sdsbench.data.sources import text_rows
from sdsbench.evaluation.lm_eval_tasks import evaluate_named
from sdsbench.models.load import load as load_model
from sdsbench.results.tables.build import build
from sdsbench.results.tables.grid import grid
from sdsbench.results.tables.loaded_runs import load
from sdsbench.runs import prepare
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.execute import execute
from sdsbench.sweeps.tuning import _deciding
from tests.tools import QUIET

WORDS = [
    "model=micro", "task=pairs", "task.prompt=question", "task.response=answer", "train.max_steps=3", "threads=1",
    "train.batch_size=4", "train.lr=1e-2", "dtype=float32", "eval.limit=12", "eval.untrained=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own pairs, a text, and RTE as the hub's nyu-mll/glue has it."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [{"question": f"What is {i} plus {i}?", "answer": f"It is {2 * i}."} for i in range(60)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "text.txt").write_text("The river runs past the old mill and the children count the boats. " * 30)
    rows: list[dict[str, object]] = [
        {"sentence1": f"Case {i} holds.", "sentence2": "It holds.", "label": i % 2, "idx": i} for i in range(20)
    ]
    write(folder / "glue/rte", train=rows, validation=rows)
    sums = [
        {
            "question": f"Tom has {i} pens and buys 2." + " He likes them." * 100,
            "answer": f"{i} + 2 = {i + 2}\n#### {i + 2}",
        }
        for i in range(9)
    ]
    write(folder / "openai/gsm8k/main", train=sums, test=sums)
    for number, subject in enumerate(STEM):
        facts = [
            {"question": f"{subject} {i}?", "choices": list("pqrs"), "answer": i % 4} for i in range(3 + number % 2)
        ]
        write(folder / "cais/mmlu" / subject, test=facts, dev=facts)
    choices = {"text": ["one", "two"], "label": ["A", "B"]}
    science = [{"id": str(i), "question": f"{i}?", "choices": choices, "answerKey": "AB"[i % 2]} for i in range(4)]
    for name in ("ARC-Easy", "ARC-Challenge"):
        write(folder / "allenai/ai2_arc" / name, train=science, validation=science, test=science)
    return folder


STEM = ["abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
        "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"]  # fmt: skip


def write(folder: Path, **splits: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(root: Path, output: Path, method: str, *words: str) -> Record:
    own = [f"method={method}", f"data.train={root / 'own.jsonl'}", f"data.root={root}", f"output_root={output}"]
    return execute(compose_run([*WORDS, *own, *words]), QUIET)


def by_stage(record: Record, evaluation: str, scorer: str) -> dict[str, Score]:
    return {
        score.stage if score.along is None else f"{score.along:g}": score
        for score in record.scores
        if (score.evaluation, score.scorer) == (evaluation, scorer)
    }


@pytest.mark.parametrize("method", ["lora", "full_ft", "pissa"])
def test_second_scores_before_after_and_along(root: Path, tmp_path: Path, method: str) -> None:
    words = ["eval.also=[rte]", f"eval.text={root / 'text.txt'}", "eval.along=[0.0001,0.5,1]"]
    record = run(root, tmp_path, method, *words)
    text, task = by_stage(record, "text", "loss"), by_stage(record, "pairs", "loss")
    assert list(text) == ["untrained", "trained", "0.0001", "0.5", "1"]
    assert list(task) == ["trained", "0.0001", "0.5", "1"], "the task itself is scored before training where asked"
    assert text["0.0001"].value == pytest.approx(text["untrained"].value, abs=2e-3), "on the way back to the base"
    for found in (text, task):
        assert found["1"].value == pytest.approx(found["trained"].value, abs=1e-4)
    assert abs(text["trained"].value - text["untrained"].value) > 1e-3
    assert text["trained"].retention and not task["trained"].retention
    rte = by_stage(record, "rte", "acc")
    assert rte["trained"].n == 12 and rte["trained"].retention and rte["trained"].unit == "share"
    scores = [s.model_copy(update={"stage": "validation"}) for s in record.scores if s.stage == "trained"]
    assert [score.scorer for score in _deciding(record.model_copy(update={"scores": scores}))] == ["loss"]
    assert str(root) not in (tmp_path / record.run_id / "record.json").read_text()
    runs, _ = load(tmp_path)
    built = build(grid(runs), runs)
    columns = {column.name.removeprefix("micro/"): column for column in built.table.columns}
    assert set(columns) == {"pairs", "text", "rte", "text/forgotten", "rte/forgotten"}
    assert columns["text"].better == "lower" and columns["rte"].better == "higher"
    (row,) = built.table.rows
    lost = built.cells[row.name, columns["text/forgotten"].name].ours
    assert lost and lost.mean == pytest.approx(text["trained"].value - text["untrained"].value)
    assert runs[0].flat["along.text.0.5"] == text["0.5"].value


def test_the_base_is_the_model_without_adapter(root: Path, tmp_path: Path) -> None:
    """transformers' own loss of the same text by the untouched weights."""
    config = compose_run([*WORDS, "method=lora", f"data.train={root / 'own.jsonl'}"])
    loaded = load_model(config.model, torch.float32, None)
    ids = torch.tensor([loaded.tokenizer((root / "text.txt").read_text(), add_special_tokens=False)["input_ids"][:512]])
    with torch.no_grad():
        loss = float(loaded.model(input_ids=ids, labels=ids).loss)
    short = tmp_path / "short.txt"
    short.write_text(loaded.tokenizer.decode(ids[0]))
    record = run(root, tmp_path / "runs", "lora", f"eval.text={short}")
    assert by_stage(record, "text", "loss")["untrained"].value == pytest.approx(loss, rel=1e-2)


def test_groups_and_generated_answers(root: Path, tmp_path: Path) -> None:
    """A group has one score over the questions of all its tasks; each way to read an answer has its own."""
    record = run(root, tmp_path, "lora", "eval.also=[mmlu_stem,gsm8k]", "eval.limit=2", "eval.along=[0.5]")
    group = by_stage(record, "mmlu_stem", "acc")
    assert list(group) == ["untrained", "trained", "0.5"] and group["trained"].n == 2 * len(STEM), "a limit is a task's"
    rows = samples.read(samples.path_of(tmp_path / record.run_id, "mmlu_stem", "trained"))
    assert len({row["id"] for row in rows}) == 2 * len(STEM)
    assert group["trained"].value == pytest.approx(sum(row["scores"]["acc"] for row in rows) / len(rows))
    assert group["trained"].stderr is not None and group["trained"].stderr > 0
    ways = [by_stage(record, "gsm8k", f"exact_match_{way}")["trained"] for way in ("strict-match", "flexible-extract")]
    assert [way.headline for way in ways] == [True, False] and {way.n for way in ways} == {2}
    assert {way.prompts_cut for way in ways} == {2}, "five examples before the question are more than micro's context"
    assert {way.truncated for way in ways} != {None}


def test_a_group_of_sets_has_second_scores(root: Path, tmp_path: Path) -> None:
    """Beside task=commonsense, whose own sets are eight, all of them generated."""
    words = ["model=micro", "task=commonsense", "data.source=embedded", f"data.root={root}", "eval.also=[rte]",
             "eval.along=[0.5]", "train.max_steps=1", "train.batch_size=2", "data.train_limit=16", "eval.limit=2",
             "threads=1", "eval.untrained=false", "task.max_new_tokens=2", f"output_root={tmp_path}"]  # fmt: skip
    record = execute(compose_run([*words, "method=lora"]), QUIET)
    assert list(by_stage(record, "rte", "acc")) == ["untrained", "trained", "0.5"]
    own = {score.evaluation for score in record.scores if not score.retention and score.along == 0.5}
    assert len(own) == 8


@pytest.mark.parametrize(("name", "said"), [
    ("hellaswg", "hellaswag"), ("piqa", "its data is not here"), ("ai2_arc", "a tag .* are arc_challenge, arc_easy"),
    ("gsm8k_cot_self_consistency", "draws its answers"), ("wikitext", "not here"),
])  # fmt: skip
def test_what_cannot_be_had_is_one_line(root: Path, name: str, said: str) -> None:
    config = compose_run([*WORDS, "method=lora", f"data.train={root / 'own.jsonl'}"])
    loaded = load_model(config.model, torch.float32, None)
    with pytest.raises(Unavailable, match=f"eval.also: {name}.*{said}"):
        evaluate_named(
            loaded.model, loaded.tokenizer, name, "trained", 8, str(root), 4, "random", False,
            watch=lambda *_: nullcontext(print),
        )  # fmt: skip


def test_missing_data_of_any_is_told_before_weights_are_loaded(root: Path) -> None:
    """All of it in one message, whatever stands before it in the list and can be had."""

    def never(*_: object) -> NoReturn:
        raise AssertionError("the model was loaded")

    words = [f"data.train={root / 'own.jsonl'}", f"data.root={root}", "eval.also=[rte,piqa,hellaswg]"]
    config, _ = resolve_source(compose_run([*WORDS, "method=lora", *words]))
    with pytest.raises(Unavailable, match=r"eval.also: piqa: its data is not here") as told:
        prepare.load(config, never)
    assert "eval.also: hellaswg" in str(told.value) and "rte" not in str(told.value)


@pytest.mark.parametrize("names", ["gsm8k", "rte,rte", "text"])
def test_a_second_score_has_a_name_of_its_own(names: str) -> None:
    with pytest.raises(ConfigError, match=r"eval\.also"):
        compose_run(["model=micro", "task=gsm8k", "method=lora", f"eval.also=[{names}]"])


def test_another_text_is_other_data(root: Path, tmp_path: Path) -> None:
    from sdsbench.core.errors import Refused

    text = tmp_path / "text.txt"
    text.write_text("One text of a few words.")
    record = run(root, tmp_path / "runs", "lora", f"eval.text={text}")
    assert record.provenance and any(used.dataset == "text" for used in record.provenance.data)
    text.write_text("Another text of a few words.")
    with pytest.raises(Refused, match="other data"):
        run(root, tmp_path / "runs", "lora", f"eval.text={text}")


def test_a_text_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "text.txt")
    with pytest.raises(Unavailable, match=r"text\.txt: a FIFO; accepted: a file"):
        text_rows(str(tmp_path / "text.txt"))


def test_a_text_that_is_trained_on_is_refused(root: Path, tmp_path: Path) -> None:
    rows = [{"text": "Something else."}, {"text": "it is 84"}]  # 42 plus 42, but for letters' size and marks
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Unavailable, match=r"eval\.text: 1 of 2 rows are in column answer of the training set pairs"):
        run(root, tmp_path / "runs", "lora", f"eval.text={tmp_path / 'text.jsonl'}")


def test_classifiers_have_no_second_score() -> None:
    with pytest.raises(ConfigError, match=r"eval\.also"):
        compose_run(["model=vit_micro", "task=vtab/dtd", "method=lora", "eval.also=[rte]"])
