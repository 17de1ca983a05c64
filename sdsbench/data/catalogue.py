"""Every data set that a task may name, with its three sources under the same column names.

hub: id, configuration and pinned revision. local: a folder below `data.root` (local_files.py). embedded: a generator
(generators.py); it makes data in the same columns and is never labelled as the real set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdsbench.core.registry import Registry
from sdsbench.data.columns import PRESENT, ColumnCheck


@dataclass(frozen=True)
class DataSet:
    """One data set. `splits` maps our split names (train, validation, test) to the hub's."""

    name: str
    columns: tuple[str, ...]
    hub_id: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    checks: Mapping[str, ColumnCheck] = field(default_factory=dict)  # by column; others: any value but null
    golds: Mapping[str, ColumnCheck] = field(default_factory=dict)  # stricter checks for rows that are scored
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    folder: str | None = None  # below data.root
    note: str = ""
    only_generated: bool = False  # no published set has this name: its rows come from its generator alone
    own: bool = False  # a user's files: data.train, data.validation, data.test
    prepared_by: str = ""  # the script that writes the local files
    question: tuple[str, ...] = ()  # rows equal in these columns ask the same question; empty: all but the last
    original: str | None = None  # the column that holds the question which a row rewords
    built_from: tuple[str, ...] = ()  # data sets whose training rows this one repeats or rewords
    classes: str | None = None  # the column of a row's class: a limited draw keeps each class's share
    held_back_from: str | None = None  # for a set without training rows: where tuning rows come from

    def checks_of(self, split: str) -> Mapping[str, ColumnCheck]:
        """Checks of the cells of a split, by column."""
        checks = {name: self.checks.get(name, PRESENT) for name in self.columns}
        return checks if split == "train" else {**checks, **self.golds}

    @property
    def text_columns(self) -> list[str]:
        return [name for name, column in self.checks.items() if column.text]

    @property
    def question_columns(self) -> tuple[str, ...]:
        return self.question or self.columns[:-1]


_CATALOGUE: Registry[DataSet] = Registry("data set", "sdsbench.tasks", lambda name: name.partition("/")[0])


def add(*sets: DataSet) -> None:
    """Register data sets (each task's file registers those that it introduces, and so does a plugin).

    Raises ValueError where another set has the name.
    """
    for data_set in sets:
        _CATALOGUE.register(data_set.name, data_set)


def get(name: str) -> DataSet:
    """The data set registered as `name`; raises KeyError if there is none.

    Any task's file may register a data set, so all task files are imported before KeyError is raised.
    """
    try:
        return _CATALOGUE.lookup(name)
    except KeyError:
        _CATALOGUE.names()
        return _CATALOGUE.lookup(name)


def known(name: str) -> bool:
    """Whether a data set of this name exists; imports all task files if necessary."""
    try:
        get(name)
    except KeyError:
        return False
    return True


def described(name: str) -> str:
    """The name followed by the catalogue's note on the set: that it is a stand-in, or which script writes its files."""
    return f"{name} ({get(name).note})" if known(name) and get(name).note else name


def names() -> list[str]:
    """All registered names, sorted."""
    return _CATALOGUE.names()
