"""task=labels: a user's own sentences with classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.core.run_folder import read_record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.run_data import load_run
from sdsbench.tasks import base
from tests.models.folders import model_folder

WORDS = ["model=minilm", "method=lora", "task=labels"]


def write_csv(path: Path, labels: list[str]) -> Path:
    lines = "".join(f"sentence number {i},{label}\n" for i, label in enumerate(labels))
    path.write_text("text,label\n" + lines)
    return path


def config_of(path: Path, *words: str):
    return resolve_source(compose_run([*WORDS, f"data.train={path}", *words]))[0]


@pytest.mark.parametrize("labels", [["no", "yes"], ["1", "2"]], ids=str)
def test_labels_are_numbered_in_the_listed_order(tmp_path: Path, labels: list[str]) -> None:
    path = write_csv(tmp_path / "own.csv", labels * 20)
    found = config_of(path, f"task.labels=[{','.join(repr(label) for label in labels[::-1])}]", "data.test_share=0.3")
    data, task = load_run(found), base.build(found.task)
    assert task.num_labels == 2 and len(data.training) + len(data.evaluations[0][1]) == 40
    for row in data.training:
        assert task.training_example(row).label == labels[::-1].index(row["label"])


def test_unlisted_label_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "own.csv", ["no", "yes", "maybe"] * 9)
    with pytest.raises(Unavailable, match=r"'maybe'; accepted: one of task\.labels, which are no, yes"):
        load_run(config_of(path, "task.labels=['no','yes']"))


def test_limits_keep_the_proportions_of_labels(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "own.csv", ["no"] * 60 + ["yes"] * 20)
    test = write_csv(tmp_path / "test.csv", ["no"] * 30 + ["yes"] * 10)
    words = ["task.labels=['no','yes']", f"data.test={test}", "data.train_limit=20", "eval.limit=12"]
    data = load_run(config_of(path, *words))
    for rows, kept in ((data.training, 5), (data.evaluations[0][1], 3)):
        assert sum(row["label"] == "yes" for row in rows) == kept


def test_drawn_test_split_has_its_share_of_every_label(tmp_path: Path) -> None:
    """A tenth of 300, 60 and 5 rows, rounded and at least one; no row is in both splits."""
    labels = ["no"] * 300 + ["yes"] * 60 + ["maybe"] * 5
    words = ["task.labels=['no','yes','maybe']"]
    data = load_run(config_of(write_csv(tmp_path / "own.csv", labels), *words))
    tested = data.evaluations[0][1]
    assert Counter(row["label"] for row in tested) == {"no": 30, "yes": 6, "maybe": 1}
    texts = [{row["text"] for row in rows} for rows in (data.training, tested)]
    assert not texts[0] & texts[1] and sum(map(len, texts)) == 365
    tuning = load_run(config_of(tmp_path / "own.csv", *words, "eval.split=validation"))
    assert not texts[1] & {row["text"] for rows in (tuning.training, tuning.evaluations[0][1]) for row in rows}


def test_rows_with_one_text_are_in_one_split_whatever_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    lines = [f"text {i}{mark},{label}\n" for i in range(30) for mark, label in (("", "no"), ("!", "yes"), ("?", "no"))]
    path.write_text("text,label\n" + "".join(lines))
    data = load_run(config_of(path, "task.labels=['no','yes']", "data.test_share=0.2"))
    sides = [{row["text"].rstrip("!?") for row in rows} for rows in (data.training, data.evaluations[0][1])]
    assert len(sides[1]) == 6 and not sides[0] & sides[1]


def test_added_rows_move_few_earlier_rows_between_splits(tmp_path: Path) -> None:
    """The rows of a label with the smallest hashes are its test rows, so 20 new rows displace only a few."""
    tested = []
    for count in (200, 220):
        path = write_csv(tmp_path / f"{count}.csv", ["no", "yes"] * (count // 2))
        rows = load_run(config_of(path, "task.labels=['no','yes']")).evaluations[0][1]
        tested.append({row["text"] for row in rows})
    assert len(tested[0] & tested[1]) >= 18 and [len(rows) for rows in tested] == [20, 22]


def test_labels_must_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.labels"):
        compose_run([*WORDS, f"data.train={tmp_path}"])


def test_run_on_labels_has_accuracy_and_matthews_scores(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "own.csv", ["no", "yes"] * 20)
    words = ["task=labels", "task.labels=['no','yes']", "model=local", "model.family=encoder", "method=lora",
             "method.rank=4", f"model.location={model_folder(tmp_path / 'model', 'bert')}", f"data.train={path}",
             "train.max_steps=2", "threads=1", "eval.untrained=false", f"output_root={tmp_path / 'runs'}"]  # fmt: skip
    assert main(words) == 0
    (run,) = (tmp_path / "runs").iterdir()
    scores = {score.scorer: score for score in read_record(run / "record.json").scores}
    assert list(scores) == ["accuracy", "matthews"] and scores["accuracy"].headline and scores["accuracy"].floor == 0.5
