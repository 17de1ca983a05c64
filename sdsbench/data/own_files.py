"""A user's own files: which file holds a split, and which rows are reported on where no test file is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from sdsbench.core.errors import Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.data import local_files
from sdsbench.data.data_config import DataConfig
from sdsbench.data.local_files import SplitFiles

NAMED_BY = "The task's keys name columns of own files: task.prompt=COLUMN task.response=COLUMN, say (docs/data.md)."


def fields(text: str) -> list[str]:
    """The columns that a template with {COLUMN} fields names; a text without fields is itself a column name.

    Raises ValueError for braces that do not enclose a column name.
    """
    names = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    return list(dict.fromkeys(names)) or [text]


def files(split: str, config: DataConfig) -> SplitFiles:
    """The files that a split is read from. Without a test file, test rows are split off the training file (see `side`).

    Raises Unavailable if no file is given or it cannot be read.
    """
    given = {"train": config.train, "validation": config.validation, "test": config.test or config.train}[split]
    if not given:
        raise Unavailable(f"data.{split}={given}: accepted: a file of rows, data.{split}=FILE")
    key = split if getattr(config, split) else "train"
    try:
        return local_files.of_path(Path(given))
    except Unavailable as error:
        raise Unavailable(f"data.{key}: {error}") from None
    except OSError as error:
        raise Unavailable(f"data.{key}={given}: {error}") from None


def side(rows: Any, split: str, share: float) -> Any:
    """The rows of the training file that belong to a split, if no test file is given.

    A hash of its question assigns each row to a side, so adding or removing rows does not move others, and rows with
    the same question stay together. If rows have classes, each class gives its share of questions, those with the
    smallest hashes, to the test side. Raises Unavailable if a side has no row.
    """
    if split == "validation":
        return rows
    questions = list(rows.questions())
    known = len(rows) and rows.classes in rows[0]  # if the column is missing, the task's check reports it
    tested = _of_each_class(questions, rows, share) if known else {q for q in questions if _place(q) < share}
    kept = [position for position, question in enumerate(questions) if (question in tested) == (split == "test")]
    if not kept:
        raise Unavailable(
            f"data.test_share={share}: no row of {len(rows)} is left for the {split} split; accepted: a share that "
            "leaves some on both sides, or data.test=FILE"
        )
    return rows.take(kept)


def _of_each_class(questions: Sequence[str], rows: Any, share: float) -> set[str]:
    """The questions of the test side: each class's share, rounded, and at least one if the class has two or more.

    A question that occurs in several classes counts for the class whose name sorts first.
    """
    class_of: dict[str, str] = {}
    for question, row in zip(questions, rows.cells([rows.classes]), strict=True):
        name = str(row[rows.classes])
        class_of[question] = min(name, class_of.get(question, name))
    tested: set[str] = set()
    for members in grouped(class_of, class_of.__getitem__).values():
        count = max(round(share * len(members)), min(1, len(members) - 1)) if share else 0
        tested.update(sorted(members, key=_place)[:count])
    return tested


def _place(question: str) -> float:
    """A number in [0, 1) that depends only on the question."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") / 2**64
