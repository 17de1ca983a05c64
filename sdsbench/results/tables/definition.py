"""What a table is, as data: rows and columns that each say which runs they hold.

A cell holds the runs that fit both its row's and its column's `where`; keys are columns of `load_runs`
(model, method, rank, protocol, config.method.sign ...), a tuple of values means any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sdsbench.core.record import Score

Format = Literal["score", "count", "seconds", "share", "gib", "number"]


@dataclass(frozen=True)
class Row:
    name: str  # what `sdsbench trace` is given
    title: str
    where: Mapping[str, Any]
    published: Mapping[str, str] = field(default_factory=dict)  # method, rank, note of the paper's numbers


@dataclass(frozen=True)
class Column:
    name: str
    title: str
    where: Mapping[str, Any]
    measure: str = "score"  # score, or a name of tables/run_values.py, or a column of load_runs
    evaluation: str = ""  # for scores
    scorer: str = ""  # empty: the one that the evaluation is ranked by
    stage: str = "trained"
    group: str = ""  # head above several columns
    format: Format = "score"
    better: Literal["higher", "lower", ""] = "higher"
    parts: tuple[str, ...] = ()  # names of columns (one that is not there has no value): their mean, seed by seed
    published: Mapping[str, str] = field(default_factory=dict)  # model, task, metric of the paper's numbers

    @property
    def heading(self) -> str:
        """Its title, below that of its group."""
        return f"{self.group}: {self.title}" if self.group else self.title

    @property
    def digits(self) -> str:
        """How sentences write its values: points of 100 with one decimal, other numbers with three digits."""
        return ".1f" if self.format == "score" else ".3g"


def shown_as(score: Score) -> dict[str, Any]:
    """The format and direction of a column that shows such a score."""
    return {"format": "score" if score.unit == "share" else "number", "better": score.better}


@dataclass(frozen=True)
class Table:
    name: str  # lora_sb/table1
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    paper: str = ""  # file of results/paper
    number: str = ""  # the table's number there
    real_data: bool = True  # embedded stand-ins are kept out
    note: str = ""
