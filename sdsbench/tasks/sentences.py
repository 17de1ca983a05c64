"""Sentence classification: examples, tokens, batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdsbench.tasks.base import Row
from sdsbench.tasks.classification import LabelledTask

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SentenceExample:
    """One or two sentences and their label: a class number, or a value for regression."""

    text: str
    text_pair: str | None
    label: float


class SentenceTask(LabelledTask):
    kind = "classification"
    columns: Sequence[str] = ()  # of the sentence or the two sentences

    def training_example(self, row: Row) -> SentenceExample:
        """The example of a row; also used for evaluation, since all splits have the same columns."""
        text, *pair = (row[column] for column in self.columns)
        return SentenceExample(text, pair[0] if pair else None, float(self.label(row)))

    def label(self, row: Row) -> float:
        return row["label"]

    def asked(self, row: Row, index: int) -> str:
        if len(self.columns) == 1:
            return str(row[self.columns[0]])
        return "\n".join(f"{column}: {row[column]}" for column in self.columns)


@dataclass(frozen=True)
class EncodedSentence:
    inputs: Mapping[str, list[int]]  # input_ids, attention_mask and, for BERT, token_type_ids
    label: float
    cut: bool = False  # longer than train.max_length

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])

    @property
    def targets(self) -> int:
        return 1


class SentenceBatcher:
    """Tokenises sentences or pairs with the model's tokenizer; pairs over `max_length` tokens are truncated, the longer
    first."""

    def __init__(self, task: SentenceTask, tokenizer: Any, max_length: int) -> None:
        self.task, self.tokenizer, self.max_length = task, tokenizer, max_length

    def encode_all(self, rows: Any) -> list[EncodedSentence]:
        return [self._encode(self.task.training_example(row)) for row in rows]

    def _encode(self, example: SentenceExample) -> EncodedSentence:
        inputs = self.tokenizer(example.text, example.text_pair, truncation=True, max_length=self.max_length)
        full = len(inputs["input_ids"]) == self.max_length
        cut = full and len(self.tokenizer(example.text, example.text_pair)["input_ids"]) > self.max_length
        return EncodedSentence({name: list(inputs[name]) for name in inputs}, example.label, cut)

    def lengths(self, examples: Sequence[EncodedSentence]) -> list[int]:
        return [example.length for example in examples]

    def collate(self, examples: Sequence[EncodedSentence]) -> dict[str, Tensor]:
        """The model's inputs, each of shape (b, t), padded to the longest example."""
        return dict(self.tokenizer.pad([dict(example.inputs) for example in examples], return_tensors="pt"))
