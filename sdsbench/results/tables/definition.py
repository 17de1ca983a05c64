"""Table definitions as data: each row and each column says which runs it holds.

A cell holds the runs that fit the `where` of both its row and its column. Keys are columns of `load_runs` (model,
method, rank, protocol, config.method.sign ...); a tuple of values means any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sdsbench.core.record import Score

Format = Literal["score", "count", "seconds", "share", "gib", "number"]


@dataclass(frozen=True)
class Row:
    """A table row: the runs whose columns of load_runs fit `where`."""

    name: str  # the ROW argument of `sdsbench trace`
    title: str
    where: Mapping[str, Any]
    published: Mapping[str, str] = field(default_factory=dict)  # keys of the paper's numbers: method, rank, note


@dataclass(frozen=True)
class Column:
    """A table column: the runs that fit `where`, and the value that is shown for them."""

    name: str
    title: str
    where: Mapping[str, Any]
    measure: str = "score"  # score, or a name of tables/run_values.py, or a column of load_runs
    evaluation: str = ""  # only for the measure score
    scorer: str = ""  # empty: the evaluation's headline scorer
    stage: str = "trained"
    group: str = ""  # heading above several columns
    format: Format = "score"
    better: Literal["higher", "lower", ""] = "higher"
    parts: tuple[str, ...] = ()  # this column is the mean of these columns, seed by seed; unknown names have no value
    published: Mapping[str, str] = field(default_factory=dict)  # keys of the paper's numbers: model, task, metric

    @property
    def heading(self) -> str:
        """The column's title with its group's in front."""
        return f"{self.group}: {self.title}" if self.group else self.title

    @property
    def digits(self) -> str:
        """The format of its values in sentences: one decimal for points (of 100), else three significant digits."""
        return ".1f" if self.format == "score" else ".3g"


def column_format(score: Score) -> dict[str, Any]:
    """The fields `format` and `better` of a column that shows this score."""
    return {"format": "score" if score.unit == "share" else "number", "better": score.better}


@dataclass(frozen=True)
class Table:
    """A table definition; its cells are filled by tables/build.py."""

    name: str  # lora_sb/table1
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    paper: str = ""  # file name in results/paper
    number: str = ""  # the table's number there
    real_data: bool = True  # leave out runs on generated data
    note: str = ""
