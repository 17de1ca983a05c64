"""Rows for tuning, for reporting and for training are disjoint in every task, also where a question is reworded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdsbench.core.errors import Unavailable
from sdsbench.data.draw import draw
from sdsbench.data.generators import generator_name
from sdsbench.data.held_back import load_training, tuning_rows
from sdsbench.data.sources import Rows
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.run_data import RunData, load_run
from sdsbench.tasks import base
from sdsbench.tasks.classification import Aggregate
from tests.tools import reads_own_files

MODELS = {"text": "micro", "classification": "minilm", "vision": "vit_micro"}
TASKS = [
    name for name in options("task") if not issubclass(base.lookup(name)[0], Aggregate) and not reads_own_files(name)
]
LOCAL = {
    **{name: [] for name in ("gsm8k", "math")},
    **{
        f"commonsense/{name}": ["task.train_set=commonsense_170k_sample"]
        for name in ("boolq", "arc_easy", "arc_challenge", "openbookqa", "social_i_qa", "winogrande", "hellaswag")
    },
    **{f"glue/{name}": [] for name in ("cola", "rte", "mrpc", "stsb", "qnli", "sst2")},
    "metamath": ["task.train_set=metamath_style_derived"],
    "vision/dtd10": [],
    "vision/cifar10": [],
}
OFFICIAL_OVERLAPS = {"commonsense/arc_easy", "metamath", "glue/sst2", "glue/cola", "glue/stsb", "vision/cifar10"}


def config_of(name: str, *overrides: str) -> RunConfig:
    model = MODELS[base.lookup(name)[0].kind]
    return resolve_source(compose_run([f"task={name}", f"model={model}", *overrides]))[0]


def questions(rows: Rows) -> set[str]:
    """The questions of the rows as raw values, without the project's own functions for that."""
    return {" ".join(_as_text(row[key]) for key in _question_columns(rows)) for row in rows}


def _question_columns(rows: Rows) -> Iterator[str]:
    names = "question sentence problem instruction query sentence1 sentence2 premise hypothesis question1 question2"
    yield from (key for key in rows[0] if key in [*names.split(), "image", "img"])


def _as_text(value: object) -> str:
    return value.tobytes().hex() if hasattr(value, "tobytes") else str(value)


def tuning_and_final_data(name: str, *overrides: str) -> tuple[RunData, RunData]:
    """The data of a tuning run and of a final run with the same overrides."""
    return load_run(config_of(name, "eval.split=validation", *overrides)), load_run(config_of(name, *overrides))


def assert_disjoint(name: str, tuning: RunData, final: RunData, overlaps: bool = False) -> None:
    seen = questions(tuning.training)
    for (evaluation, tuned), (_, reported) in zip(tuning.evaluations, final.evaluations, strict=True):
        rows, test = questions(tuned), questions(reported)
        assert rows and not rows & test, f"{evaluation.name}: tuned on reported rows"
        assert not rows & seen, f"{evaluation.name}: trained on tuning rows"
        if not overlaps:
            assert not test & questions(final.training), f"{evaluation.name}: trained on reported rows"


def _generators(name: str) -> tuple[str, ...]:
    """Generators (without numbers of classes, since VTAB's tasks share digits) and splits of a task's embedded rows."""
    task = config_of(name, "data.source=embedded").task
    sets = [task.train_set, *(evaluation.dataset for evaluation in base.build(task).evaluations())]
    splits = [evaluation.split for evaluation in base.build(task).evaluations()]
    return (*(re.sub(r"_\d+$", "", generator_name(name)) for name in sets), *splits)


@pytest.mark.parametrize("kind", MODELS)
def test_tuning_reported_and_training_rows_are_disjoint(kind: str) -> None:
    """For one task of each combination of generators of embedded rows."""
    tasks = {_generators(name): name for name in TASKS if base.lookup(name)[0].kind == kind}
    for name in tasks.values():
        assert_disjoint(name, *tuning_and_final_data(name, "data.source=embedded", "data.validation_rows=50"))


@pytest.mark.local_data
@pytest.mark.parametrize("name", LOCAL)
def test_real_tuning_reported_and_training_rows_are_disjoint(name: str, data_root: Path) -> None:
    words = ["data.source=local", f"data.root={data_root}", *LOCAL[name]]
    tuning, final = tuning_and_final_data(name, *words)
    assert_disjoint(name, tuning, final, overlaps=name in OFFICIAL_OVERLAPS)
    assert 0 <= len(final.training) - len(tuning.training) <= 400, "at most 200 held-back rows and their duplicates"


def write_split(root: Path, name: str, **columns: list[str]) -> None:
    path = root / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_gsm8k(root: Path, train: list[str], test: list[str]) -> Path:
    for split, texts in (("train", train), ("test", test)):
        write_split(root, f"gsm8k/{split}", question=texts, answer=[f"#### {i}" for i in range(len(texts))])
    return root


def test_held_back_rows_are_the_same_for_every_seed_and_limit(tmp_path: Path) -> None:
    root = write_gsm8k(tmp_path, [f"q{i}" for i in range(30)], ["t"])
    words = ["data.source=local", f"data.root={root}", "data.validation_rows=10", "eval.split=validation"]
    runs = [load_run(config_of("gsm8k", *words, *more)) for more in ([], ["seed=7"], ["eval.limit=3"])]
    held_back = [questions(run.evaluations[0][1]) for run in runs]
    assert held_back[0] == held_back[1] > held_back[2] and len(held_back[0]) == 10 and len(held_back[2]) == 3
    fixed = np.random.default_rng(20240).permutation(30)[:10]  # another seed would tune later runs on other rows
    assert runs[0].evaluations[0][1].indices == tuple(sorted(fixed.tolist()))
    for run in runs:
        assert questions(run.training) == {f"q{i}" for i in range(30)} - held_back[0]
    assert runs[0].evaluations[0][1].split == "held_back"


@pytest.mark.parametrize("order", ["first", "random"])
def test_a_limit_draws_from_all_usable_rows(order: str, tmp_path: Path) -> None:
    """Only the first rows of a file may be read lazily; a random draw is over every usable row."""
    root, read = write_gsm8k(tmp_path, [f"q{i}" for i in range(60)], ["t"]), []

    def every_second(rows: Rows) -> Iterator[int]:
        for position in range(0, len(rows), 2):
            read.append(position)
            yield position

    words = ["data.source=local", f"data.root={root}", "data.train_limit=10", f"data.order={order}"]
    found = load_training("gsm8k", config_of("gsm8k", *words).data, select=every_second)
    drawn = draw([None] * 30, 10) if order == "random" else range(10)
    assert found.indices == tuple(2 * place for place in drawn)
    assert len(read) == (30 if order == "random" else 10)


@pytest.mark.parametrize("key", ["eval.limit", "data.train_limit"])
def test_limits_take_the_same_stratified_rows_for_every_seed(tmp_path: Path, key: str) -> None:
    subjects = ["Algebra"] * 40 + ["Geometry"] * 40
    for split in ("train", "test"):
        write_split(
            tmp_path, f"hendrycks_math/{split}", type=subjects, solution=["\\boxed{1}"] * 80,
            problem=[f"{split} {i}" for i in range(80)],
        )  # fmt: skip
    words = ["data.source=local", f"data.root={tmp_path}", f"{key}=20"]
    order = "eval.order=first" if key == "eval.limit" else "data.order=first"
    runs = [load_run(config_of("math", *words, *more)) for more in ([], ["seed=7"], [order])]
    rows = [run.evaluations[0][1] if key == "eval.limit" else run.training for run in runs]
    assert rows[0].indices == rows[1].indices != rows[2].indices == tuple(range(20))
    assert abs(sum(row["type"] == "Algebra" for row in rows[0]) - 10) <= 1


def test_training_row_that_respells_a_test_question_is_not_held_back(tmp_path: Path) -> None:
    root = write_gsm8k(tmp_path, [*(f"Case {i}, is it?" for i in range(8)), "The test, row."], ["the test row"])
    config = config_of("gsm8k", "data.source=local", f"data.root={root}", "data.validation_rows=9")
    assert "The test, row." not in questions(tuning_rows("gsm8k", "test", config.data))


def write_metamath(root: Path, **columns: list[str]) -> list[str]:
    """Write GSM8K and MetaMathQA; returns the overrides of a tuning run that reads them."""
    write_gsm8k(root, [f"How many are {i}?" for i in range(20)], ["t"])
    write_split(root, "metamathqa/train", **columns)
    return ["data.source=local", f"data.root={root}", "data.validation_rows=5", "eval.split=validation"]


def test_reworded_rows_of_a_held_back_question_are_not_trained_on(tmp_path: Path) -> None:
    originals = [f"How many are {i}?" for i in range(20)] * 3
    queries = [f"version {version} of {i}" for version in range(3) for i in range(20)]
    words = write_metamath(
        tmp_path, query=queries, response=["r"] * 60, original_question=[q.upper() for q in originals]
    )
    run = load_run(config_of("gsm8k", "task.train_set=metamathqa", *words))
    held_back = {text.removeprefix("How many are ").rstrip("?") for text in questions(run.evaluations[0][1])}
    assert len(held_back) == 5 and len(run.training) == 60 - 3 * 5
    assert held_back.isdisjoint(row["query"].split()[-1] for row in run.training)


def test_rows_of_one_question_are_on_one_side_of_the_rows_that_choose_the_best_step(tmp_path: Path) -> None:
    queries = [f"version {version} of {i}" for version in range(3) for i in range(20)]
    originals = [query.split()[-1] for query in queries]
    write_metamath(tmp_path, query=queries * 2, response=["r"] * 120, original_question=originals * 2)
    words = ["task.train_set=metamathqa", "data.source=local", f"data.root={tmp_path}", "train.best_every=1"]
    run = load_run(config_of("gsm8k", *words, "train.best_rows=4"))
    held_out, trained = ({row["query"].split()[-1] for row in rows} for rows in (run.held_out, run.training))
    assert len(run.held_out) == 4 and held_out.isdisjoint(trained) and len(held_out | trained) == 20
    with pytest.raises(Unavailable, match=r"train\.best_rows=115: every training row asks the same"):
        load_run(config_of("gsm8k", *words, "train.best_rows=115"))


def test_tuning_is_refused_where_reworded_rows_cannot_be_recognised(tmp_path: Path) -> None:
    words = write_metamath(tmp_path, query=["a"] * 9, response=["r"] * 9)
    with pytest.raises(Unavailable, match="metamathqa: without its column original_question"):
        load_run(config_of("gsm8k", "task.train_set=metamathqa", *words))
    words = write_metamath(tmp_path, query=["a"] * 9, response=["r"] * 9, original_question=["another form"] * 9)
    with pytest.raises(Unavailable, match="metamathqa is made of training rows of gsm8k, yet holds none"):
        load_run(config_of("gsm8k", "task.train_set=metamathqa", *words))


def test_holding_back_everything_is_refused(tmp_path: Path) -> None:
    root = write_gsm8k(tmp_path, ["a", "b"], ["t"])
    with pytest.raises(Unavailable, match=r"no training row is left.*data\.validation_rows"):
        load_run(config_of("gsm8k", "data.source=local", f"data.root={root}", "eval.split=validation"))


def test_math500_is_tuned_on_training_rows_of_math(tmp_path: Path) -> None:
    for path, texts in (("hendrycks_math/train", [f"p{i}" for i in range(9)]), ("MATH-500/test", ["t"])):
        write_split(tmp_path, path, problem=texts, solution=["\\boxed{1}"] * len(texts))
    run = load_run(
        config_of(
            "math", "task.math_test_set=math500", "data.source=local", f"data.root={tmp_path}",
            "data.validation_rows=4", "eval.split=validation",
        )
    )  # fmt: skip
    ((_, rows),) = run.evaluations
    assert (rows.dataset, rows.split, len(rows), len(run.training)) == ("hendrycks_math", "held_back", 4, 5)
