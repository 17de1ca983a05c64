"""Own sentences with classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.run_data import load_run
from sdsbench.tasks import base

WORDS = ["model=minilm", "method=lora", "task=labels"]


def write(path: Path, labels: list[str]) -> Path:
    lines = "".join(f"sentence number {i},{label}\n" for i, label in enumerate(labels))
    path.write_text("text,label\n" + lines)
    return path


def config(path: Path, *words: str):
    return resolve_source(compose_run([*WORDS, f"data.train={path}", *words]))[0]


@pytest.mark.parametrize("labels", [["no", "yes"], ["1", "2"]], ids=str)
def test_labels_are_numbered_as_they_are_listed(tmp_path: Path, labels: list[str]) -> None:
    path = write(tmp_path / "own.csv", labels * 20)
    found = config(path, f"task.labels=[{','.join(repr(label) for label in labels[::-1])}]", "data.test_share=0.3")
    data, task = load_run(found), base.build(found.task)
    assert task.num_labels == 2 and len(data.training) + len(data.evaluations[0][1]) == 40
    for row in data.training:
        assert task.training_example(row).label == labels[::-1].index(row["label"])


def test_a_label_that_is_not_listed_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", ["no", "yes", "maybe"] * 9)
    with pytest.raises(Unavailable, match=r"'maybe'; accepted: one of task\.labels, which are no, yes"):
        load_run(config(path, "task.labels=['no','yes']"))


def test_a_limit_keeps_each_label_in_proportion(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", ["no"] * 60 + ["yes"] * 20)
    test = write(tmp_path / "test.csv", ["no"] * 30 + ["yes"] * 10)
    words = ["task.labels=['no','yes']", f"data.test={test}", "data.train_limit=20", "eval.limit=12"]
    data = load_run(config(path, *words))
    for rows, kept in ((data.training, 5), (data.evaluations[0][1], 3)):
        assert sum(row["label"] == "yes" for row in rows) == kept


def test_labels_must_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.labels"):
        compose_run([*WORDS, f"data.train={tmp_path}"])
