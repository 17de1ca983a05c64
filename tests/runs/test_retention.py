"""Second scores: eval.also and eval.text measure what the base model knew; eval.along scores interpolated weights."""

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
from sdsbench.evaluation.lm_eval_tasks import _scores, evaluate_named
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
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own pairs and text, and rows in the layout of the hub's glue, gsm8k, mmlu and ai2_arc."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [{"question": f"What is {i} plus {i}?", "answer": f"It is {2 * i}."} for i in range(60)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "text.txt").write_text("The river runs past the old mill and the children count the boats. " * 30)
    rows: list[dict[str, object]] = [
        {"sentence1": f"Case {i} holds.", "sentence2": "It holds.", "label": i % 2, "idx": i} for i in range(20)
    ]
    write_splits(folder / "glue/rte", train=rows, validation=rows)
    sums = [
        {
            "question": f"Tom has {i} pens and buys 2." + " He likes them." * 100,
            "answer": f"{i} + 2 = {i + 2}\n#### {i + 2}",
        }
        for i in range(9)
    ]
    write_splits(folder / "openai/gsm8k/main", train=sums, test=sums)
    for number, subject in enumerate(STEM):
        facts = [
            {"question": f"{subject} {i}?", "choices": list("pqrs"), "answer": i % 4} for i in range(3 + number % 2)
        ]
        write_splits(folder / "cais/mmlu" / subject, test=facts, dev=facts)
    choices = {"text": ["one", "two"], "label": ["A", "B"]}
    science = [{"id": str(i), "question": f"{i}?", "choices": choices, "answerKey": "AB"[i % 2]} for i in range(4)]
    for name in ("ARC-Easy", "ARC-Challenge"):
        write_splits(folder / "allenai/ai2_arc" / name, train=science, validation=science, test=science)
    return folder


STEM = ["abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
        "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"]  # fmt: skip


def write_splits(folder: Path, **splits: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_on_pairs(data_folder: Path, output: Path, method: str, *words: str) -> Record:
    own = [
        f"method={method}",
        f"data.train={data_folder / 'own.jsonl'}",
        f"data.root={data_folder}",
        f"output_root={output}",
    ]
    return execute(compose_run([*WORDS, *own, *words]), QUIET)


def scores_by_stage(record: Record, evaluation: str, scorer: str) -> dict[str, Score]:
    """A scorer's scores by stage, and by the share of the update for interpolated weights."""
    return {
        score.stage if score.along is None else f"{score.along:g}": score
        for score in record.scores
        if (score.evaluation, score.scorer) == (evaluation, scorer)
    }


@pytest.mark.parametrize("method", ["lora", "full_ft", "pissa"])
def test_second_scores_exist_before_and_after_training_and_along_the_update(
    data_folder: Path, tmp_path: Path, method: str
) -> None:
    words = ["eval.also=[rte]", f"eval.text={data_folder / 'text.txt'}", "eval.along=[0.0001,0.5,1]"]
    record = run_on_pairs(data_folder, tmp_path, method, *words)
    text, task = scores_by_stage(record, "text", "loss"), scores_by_stage(record, "pairs", "loss")
    assert list(text) == ["untrained", "trained", "0.0001", "0.5", "1"]
    assert list(task) == ["trained", "0.0001", "0.5", "1"], "the task itself is scored before training only on request"
    assert text["0.0001"].value == pytest.approx(text["untrained"].value, abs=2e-3), "almost the base weights"
    for found in (text, task):
        assert found["1"].value == pytest.approx(found["trained"].value, abs=1e-4)
    assert abs(text["trained"].value - text["untrained"].value) > 1e-3
    assert text["trained"].retention and not task["trained"].retention
    rte = scores_by_stage(record, "rte", "acc")
    assert rte["trained"].n == 12 and rte["trained"].retention and rte["trained"].unit == "share"
    scores = [s.model_copy(update={"stage": "validation"}) for s in record.scores if s.stage == "trained"]
    assert [score.scorer for score in _deciding(record.model_copy(update={"scores": scores}))] == ["loss"]
    assert str(data_folder) not in (tmp_path / record.run_id / "record.json").read_text()
    runs, _ = load(tmp_path)
    built = build(grid(runs), runs)
    columns = {column.name.removeprefix("micro/"): column for column in built.table.columns}
    assert set(columns) == {"pairs", "text", "rte", "text/forgotten", "rte/forgotten"}
    assert columns["text"].better == "lower" and columns["rte"].better == "higher"
    (row,) = built.table.rows
    lost = built.cells[row.name, columns["text/forgotten"].name].ours
    assert lost and lost.mean == pytest.approx(text["trained"].value - text["untrained"].value)
    assert runs[0].flat["along.text.0.5"] == text["0.5"].value


def test_untrained_text_loss_equals_the_loss_of_transformers(data_folder: Path, tmp_path: Path) -> None:
    config = compose_run([*WORDS, "method=lora", f"data.train={data_folder / 'own.jsonl'}"])
    loaded = load_model(config.model, torch.float32, None)
    ids = torch.tensor(
        [loaded.tokenizer((data_folder / "text.txt").read_text(), add_special_tokens=False)["input_ids"][:512]]
    )
    with torch.no_grad():
        loss = float(loaded.model(input_ids=ids, labels=ids).loss)
    short = tmp_path / "short.txt"
    short.write_text(loaded.tokenizer.decode(ids[0]))
    record = run_on_pairs(data_folder, tmp_path / "runs", "lora", f"eval.text={short}")
    assert scores_by_stage(record, "text", "loss")["untrained"].value == pytest.approx(loss, rel=1e-2)


def test_groups_of_tasks_and_generated_answers_are_scored(data_folder: Path, tmp_path: Path) -> None:
    """A group has one score over the questions of all its tasks; each answer filter of lm-eval has its own score."""
    record = run_on_pairs(
        data_folder, tmp_path, "lora", "eval.also=[mmlu_stem,gsm8k]", "eval.limit=2", "eval.along=[0.5]"
    )
    group = scores_by_stage(record, "mmlu_stem", "acc")
    assert list(group) == ["untrained", "trained", "0.5"] and group["trained"].n == 2 * len(STEM), (
        "the limit holds per task"
    )
    rows = samples.read(samples.path_of(tmp_path / record.run_id, "mmlu_stem", "trained"))
    assert len({row["id"] for row in rows}) == 2 * len(STEM)
    assert group["trained"].value == pytest.approx(sum(row["scores"]["acc"] for row in rows) / len(rows))
    assert group["trained"].stderr is not None and group["trained"].stderr > 0
    filters = [
        scores_by_stage(record, "gsm8k", f"exact_match_{name}")["trained"]
        for name in ("strict-match", "flexible-extract")
    ]
    assert [found.headline for found in filters] == [True, False] and {found.n for found in filters} == {2}
    assert {found.prompts_cut for found in filters} == {2}, "five examples before a question exceed micro's context"
    assert {found.truncated for found in filters} != {None}


def test_task_with_several_sets_has_second_scores(data_folder: Path, tmp_path: Path) -> None:
    """task=commonsense has eight sets of its own, all with generated answers."""
    words = ["model=micro", "task=commonsense", "data.source=embedded", f"data.root={data_folder}", "eval.also=[rte]",
             "eval.along=[0.5]", "train.max_steps=1", "train.batch_size=2", "data.train_limit=16", "eval.limit=2",
             "threads=1", "eval.untrained=false", "task.max_new_tokens=2", f"output_root={tmp_path}"]  # fmt: skip
    record = execute(compose_run([*words, "method=lora"]), QUIET)
    assert list(scores_by_stage(record, "rte", "acc")) == ["untrained", "trained", "0.5"]
    own = {score.evaluation for score in record.scores if not score.retention and score.along == 0.5}
    assert len(own) == 8


@pytest.mark.parametrize(("name", "message"), [
    ("hellaswg", "hellaswag"), ("piqa", "its data is not here"), ("ai2_arc", "a tag .* are arc_challenge, arc_easy"),
    ("gsm8k_cot_self_consistency", "draws its answers"), ("wikitext", "not here"),
])  # fmt: skip
def test_unusable_second_evaluation_is_refused_with_the_reason(data_folder: Path, name: str, message: str) -> None:
    config = compose_run([*WORDS, "method=lora", f"data.train={data_folder / 'own.jsonl'}"])
    loaded = load_model(config.model, torch.float32, None)
    with pytest.raises(Unavailable, match=f"eval.also: {name}.*{message}"):
        evaluate_named(
            loaded.model, loaded.tokenizer, name, "trained", 8, str(data_folder), 4, "random", False,
            watch=lambda *_: nullcontext(print),
        )  # fmt: skip


def test_missing_data_of_second_evaluations_is_refused_before_weights_are_loaded(data_folder: Path) -> None:
    """One message names all that is missing, also after an evaluation in the list whose data is present."""

    def fail_if_called(*_: object) -> NoReturn:
        raise AssertionError("the model was loaded")

    words = [f"data.train={data_folder / 'own.jsonl'}", f"data.root={data_folder}", "eval.also=[rte,piqa,hellaswg]"]
    config, _ = resolve_source(compose_run([*WORDS, "method=lora", *words]))
    with pytest.raises(Unavailable, match=r"eval.also: piqa: its data is not here") as caught:
        prepare.load(config, fail_if_called)
    assert "eval.also: hellaswg" in str(caught.value) and "rte" not in str(caught.value)


@pytest.mark.parametrize("names", ["gsm8k", "rte,rte", "text"])
def test_second_evaluations_need_distinct_names(names: str) -> None:
    with pytest.raises(ConfigError, match=r"eval\.also"):
        compose_run(["model=micro", "task=gsm8k", "method=lora", f"eval.also=[{names}]"])


@pytest.mark.parametrize("name", ["blimp_nl__auxiliaries__order_1", "bertaqa_en_mt_latxa-7b-v1.1"])
def test_task_whose_answers_could_not_be_stored_is_refused_before_it_is_scored(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"eval\.also=\['{name}'\]: accepted: .* whose names have no `__` and no dot"
    ):
        compose_run(["model=micro", "task=gsm8k", "method=lora", f"eval.also=[rte,{name}]"])


def test_changed_text_counts_as_other_data(data_folder: Path, tmp_path: Path) -> None:
    from sdsbench.core.errors import Refused

    text = tmp_path / "text.txt"
    text.write_text("One text of a few words.")
    record = run_on_pairs(data_folder, tmp_path / "runs", "lora", f"eval.text={text}")
    assert record.provenance and any(used.dataset == "text" for used in record.provenance.data)
    text.write_text("Another text of a few words.")
    with pytest.raises(Refused, match="other data"):
        run_on_pairs(data_folder, tmp_path / "runs", "lora", f"eval.text={text}")


def test_text_that_is_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "text.txt")
    with pytest.raises(Unavailable, match=r"text\.txt: a FIFO; accepted: a file"):
        text_rows(str(tmp_path / "text.txt"))


def test_text_with_training_rows_is_refused(data_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"text": "Something else."},
        {"text": "it is 84"},
    ]  # the answer to 42 plus 42, except for case and punctuation
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Unavailable, match=r"eval\.text: 1 of 2 rows are in column answer of the training set pairs"):
        run_on_pairs(data_folder, tmp_path / "runs", "lora", f"eval.text={tmp_path / 'text.jsonl'}")


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["eval.also=[rte]"], ["eval.also=['rte']: accepted: [] with"]),
        (["eval.text=a.txt"], ["eval.text='a.txt': accepted: null with"]),
        (["eval.also=[rte]", "eval.text=a.txt"], ["eval.also=['rte']", "eval.text='a.txt'"]),
    ],
    ids=" ".join,
)
def test_classifier_with_second_scores_is_refused(words: list[str], refused: list[str]) -> None:
    """The message names the keys that are set."""
    with pytest.raises(ConfigError) as caught:
        compose_run(["model=vit_micro", "task=vtab/dtd", "method=lora", *words])
    problems = [str(problem) for problem in caught.value.problems]
    assert len(problems) == len(refused) and all(map(str.startswith, problems, refused)), problems


def test_unit_of_a_metric_is_the_same_before_and_after_training() -> None:
    """A Matthews correlation may be below 0, and a perplexity or a difference of likelihoods within 0 and 1."""
    for metric, values, unit in (
        ("mcc", (-0.05, 0.3), "share"),
        ("prompt_level_strict_acc", (0.0, 1.0), "share"),
        ("likelihood_diff", (0.4, 3.0), "number"),
        ("f1", (47.5, 60.0), "number"),  # as SQuAD's, which lm-eval gives in points of 100
    ):
        for value in values:
            found = {"results": {"a": {f"{metric},none": value}}, "higher_is_better": {}, "versions": {"a": 1}}
            (score,) = _scores("a", "trained", found, {"n": 2}, [])
            assert (score.value, score.unit) == (value, unit)
