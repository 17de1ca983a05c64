"""Unusable rows are refused in one message before a model is loaded; tests/tasks/test_real_data.py checks real sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import Unavailable
from sdsbench.data import sources
from sdsbench.data.data_config import DataConfig
from sdsbench.tasks import base

GOOD: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [{"question": f"q{i}", "answer": f"so\n#### {i}"} for i in range(4)],
    "hendrycks_math": [{"problem": f"p{i}", "solution": f"so $\\boxed{{{i}}}$", "type": "Algebra"} for i in range(4)],
    "glue/rte": [{"sentence1": f"a{i}", "sentence2": "b", "label": i % 2} for i in range(4)],
    "glue/stsb": [{"sentence1": f"a{i}", "sentence2": "b", "label": i / 2} for i in range(4)],
    "metamathqa": [{"query": f"q{i}", "response": "r"} for i in range(4)],
    "boolq": [
        {"instruction": f"{i}?\n\nAnswer format: true/false", "input": "", "output": "o", "answer": "true"}
        for i in range(4)
    ],
    "vtab/dtd": [{"image": {"bytes": b"png", "path": "a.png"}, "label": i} for i in range(4)],
}
BAD: list[tuple[str, str, Any, str]] = [
    ("gsm8k", "question", None, "None; accepted: text that is not empty"),
    ("gsm8k", "question", "  ", "'  '; accepted: text that is not empty"),
    ("gsm8k", "answer", None, "None; accepted: a solution that ends in"),
    ("gsm8k", "answer", "It is 18.", "accepted: a solution that ends in `#### 72`"),
    ("gsm8k", "answer", "so #### $18", "accepted: a solution that ends in `#### 72`"),
    ("gsm8k", "answer", "so #### ", "accepted: a solution that ends in `#### 72`"),
    ("gsm8k", "answer", "so #### 1/0", "accepted: a solution that ends in `#### 72`"),
    ("gsm8k", "answer", "so #### 1e9999999", "accepted: a solution that ends in `#### 72`"),
    ("gsm8k", "answer", "so #### " + "9" * 5000, "(5010 characters); accepted: a solution"),
    ("hendrycks_math", "solution", "so 2.", "accepted: a solution with its answer in \\boxed{...}"),
    ("hendrycks_math", "solution", "so \\boxed{}", "accepted: a solution with its answer in \\boxed{...}"),
    ("hendrycks_math", "solution", "\\boxed{" + "1" * 5000 + "}", "at most 400 characters"),
    ("hendrycks_math", "solution", "\\boxed{1e9999999}", "no huge exponent"),
    ("hendrycks_math", "solution", "\\boxed{10^{9999999}}", "no huge exponent"),
    ("glue/rte", "label", -1, "-1; accepted: a whole number from 0 to 1 (0 entailment, 1 not_entailment)"),
    ("glue/rte", "label", 7, "7; accepted: a whole number from 0 to 1"),
    ("glue/rte", "label", None, "None; accepted: a whole number from 0 to 1"),
    ("glue/rte", "sentence2", None, "None; accepted: text that is not empty"),
    ("glue/stsb", "label", 5.5, "5.5; accepted: a number from 0 to 5"),
    ("glue/stsb", "label", float("nan"), "nan; accepted: a number from 0 to 5"),
    ("metamathqa", "response", "", "''; accepted: text that is not empty"),
    ("boolq", "answer", "solution1", "'solution1'; accepted: one of the labels after `Answer format:`"),
    ("vtab/dtd", "label", -100, "-100; accepted: a whole number from 0 to 46"),
    ("vtab/dtd", "image", {"bytes": None, "path": "a.png"}, "accepted: an image with its bytes"),
]


@pytest.fixture(autouse=True)
def _register_data_sets() -> None:
    for name in ("gsm8k", "math", "metamath", "glue", "commonsense", "vision/dtd", "vtab"):
        base.lookup(name)


def write_rows(root: Path, name: str, rows: list[dict[str, Any]], split: str) -> DataConfig:
    from sdsbench.data import catalogue

    folder = root / str(catalogue.get(name).folder)
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    return DataConfig(source="local", root=str(root))


def loaded_split(name: str) -> str:
    return "train" if name == "metamathqa" else "validation" if name.startswith("glue") else "test"


@pytest.mark.parametrize("name", GOOD)
def test_good_rows_are_accepted(name: str, tmp_path: Path) -> None:
    assert len(sources.load(name, loaded_split(name), write_rows(tmp_path, name, GOOD[name], loaded_split(name)))) == 4


@pytest.mark.parametrize(("name", "column", "value", "expected"), BAD, ids=lambda value: str(value)[:20])
def test_bad_cell_is_refused_with_row_column_and_accepted_values(
    name: str, column: str, value: Any, expected: str, tmp_path: Path
) -> None:
    rows = [dict(row) for row in GOOD[name]]
    rows[2][column] = value
    config = write_rows(tmp_path, name, rows, loaded_split(name))
    with pytest.raises(Unavailable) as caught:
        sources.load(name, loaded_split(name), config)
    text = str(caught.value)
    assert f"data set {name}, split {loaded_split(name)}, source local: 1 of 4 rows cannot be used" in text
    assert f"row 3, column {column}: " in text and expected in text
    assert len(text) < 600


def test_labels_that_are_texts_or_count_from_1_are_refused_with_advice(tmp_path: Path) -> None:
    rows = [{**row, "label": row["label"] + 1} for row in GOOD["glue/rte"]]
    with pytest.raises(Unavailable, match=r"(?s)2 of 4 rows.*counted from 1: write label - 1"):
        sources.load("glue/rte", "train", write_rows(tmp_path, "glue/rte", rows, "train"))
    rows = [{**row, "label": "entailment"} for row in GOOD["glue/rte"]]
    with pytest.raises(Unavailable, match=r"'entailment'; accepted: a whole number from 0 to 1 \(0 entailment"):
        sources.load("glue/rte", "train", write_rows(tmp_path, "glue/rte", rows, "train"))


def test_numbers_in_the_place_of_a_text_that_depends_on_another_column_are_refused(tmp_path: Path) -> None:
    rows = [{**row, "answer": 1} for row in GOOD["boolq"]]
    with pytest.raises(
        Unavailable, match=r"4 of 4 rows.*\n  row 1, column answer: 1; accepted: one of the lab"
    ) as caught:
        sources.load("boolq", "test", write_rows(tmp_path, "boolq", rows, "test"))
    assert "counted from 1" not in str(caught.value)


def test_generated_row_without_a_column_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for column in ("instruction", "answer"):
        rows = [*GOOD["boolq"], {key: value for key, value in GOOD["boolq"][0].items() if key != column}]
        monkeypatch.setattr(sources, "_rows_of", lambda *_, rows=rows: rows)
        with pytest.raises(Unavailable, match=f"1 of 5 rows cannot be used:\n  row 5, column {column}: None"):
            sources.load("boolq", "test", DataConfig(source="embedded"))


def test_many_bad_rows_give_one_short_message(tmp_path: Path) -> None:
    rows = [{"question": "", "answer": "#### 1"}] * 5000
    with pytest.raises(Unavailable) as caught:
        sources.load("gsm8k", "test", write_rows(tmp_path, "gsm8k", rows, "test"))
    assert "5000 of 5000 rows" in str(caught.value) and "and 4995 more" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_command_with_bad_rows_ends_with_3_before_it_loads_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, "gsm8k", GOOD["gsm8k"], "train")
    write_rows(tmp_path, "gsm8k", [{"question": "q", "answer": "#### $18"}], "test")
    words = ["model=micro", "method=lora", "task=gsm8k", "data.source=local", f"data.root={tmp_path}"]
    monkeypatch.setattr("sdsbench.runs.run_context.load_model", lambda *_: pytest.fail("a model was loaded"))
    code = main([*words, f"output_root={tmp_path / 'runs'}"])
    error = capsys.readouterr().err
    assert code == 3 and error.count("sdsbench: ") == 1
    assert "data set gsm8k, split test, source local: 1 of 1 rows" in error


def test_training_rows_without_a_readable_answer_are_not_held_back(tmp_path: Path) -> None:
    """Two training solutions of MATH have no \\boxed answer: they may be trained on, but cannot be scored."""
    from sdsbench.data.held_back import tuning_rows

    plain = [{"problem": f"no box {i}", "solution": "It holds.", "type": "Algebra"} for i in range(20)]
    write_rows(tmp_path, "hendrycks_math", [*plain, *GOOD["hendrycks_math"]], "train")
    test = [{"problem": "t", "solution": "\\boxed{1}", "type": "Algebra"}]
    config = write_rows(tmp_path, "hendrycks_math", test, "test")
    assert len(tuning_rows("hendrycks_math", "test", config)) == 4
