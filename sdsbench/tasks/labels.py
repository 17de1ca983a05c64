"""A user's own sentences with classes, for an encoder: files (data.train, data.test) with a text and a label. A sample
row:

    {"text": "The parcel came a week late.", "label": "complaint"}

`task.labels=[complaint,praise,question]` lists the labels as they are written in the files, numbers too. A second
sentence is `task.text_pair=COLUMN`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import TEXT, ColumnCheck
from sdsbench.tasks.base import Evaluation, Labelled, Row, TaskConfig, register
from sdsbench.tasks.sentences import SentenceTask

catalogue.add(DataSet(name="labels", columns=(), splits={"train": "train"}, own=True))


class LabelsConfig(TaskConfig):
    text: str = Field("text", description="column of the text")
    text_pair: str | None = Field(None, description="column of a second text, joined as the tokenizer joins pairs")
    label: str = Field("label", description="column of the label")
    labels: list[str] = Field([], description="every label as written in the files, in the order of the class numbers")

    def problems(self) -> Iterator[Problem]:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            advice = f"Every value of the column task.label={self.label}, each once: task.labels=[no,yes]"
            yield Problem("task.labels", self.labels, "two or more different texts", advice)


@register("labels", LabelsConfig)
class Labels(SentenceTask):
    config: LabelsConfig

    def __init__(self, config: LabelsConfig) -> None:
        self.label_names, self.classes = tuple(config.labels), config.label
        self._numbers = {name: number for number, name in enumerate(config.labels)}
        self.columns = (config.text,) if config.text_pair is None else (config.text, config.text_pair)
        super().__init__(config)

    def checks(self) -> Mapping[str, ColumnCheck]:
        shown = ", ".join(self.config.labels[:20])
        label = ColumnCheck(f"one of task.labels, which are {shown}", lambda value, _: self._number(value) is not None)
        return {**dict.fromkeys(self.columns, TEXT), self.config.label: label}

    def label(self, row: Row) -> float:
        number = self._number(row[self.config.label])
        assert number is not None, "rows are checked when they are read"
        return number

    def evaluations(self) -> Sequence[Evaluation]:
        return [Labelled("labels", 1, "labels", "test", metrics=("accuracy", "matthews"), headline="accuracy")]

    def _number(self, value: Any) -> int | None:
        """The class number of a label, which a file may hold as text or as a whole number."""
        return self._numbers.get(str(value)) if isinstance(value, str | int) else None
