"""The interface of a task: its data, its training examples and how its answers are scored.

A task file opens with a sample row and registers a Task subclass; graders are in graders/, and one file
conf/task/<name>.yaml configures the task. Three families share the same methods and differ in `kind`:

| kind | training example | loss | evaluation |
|---|---|---|---|
| text | prompt + response | cross-entropy of the response (or the whole sequence) | lm-eval: generation or likelihood |
| classification | one or two sentences, label | cross-entropy; squared error for one output | scikit-learn, scipy |
| vision | image, label | cross-entropy | scikit-learn, scipy |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from sdsbench.core.registry import ClassRegistry
from sdsbench.core.section import Count, Section
from sdsbench.data.columns import ColumnCheck

Row = Mapping[str, Any]
Scorer = Callable[[Row, str], float | None]
"""(row, generated text) -> True, False or a score from 0 to 1; None: undecided, since a limit was hit. Must not raise
for any text."""
Kind = Literal["text", "classification", "vision"]
BeginToken = Literal["tokenizer", "always", "never"]


class TaskConfig(Section):
    """Keys that every task has."""

    name: str = Field(description="registered name of the task")
    train_set: str = Field(description="catalogue name of the training set (sdsbench/data/catalogue.py)")


class TextTaskConfig(TaskConfig):
    """Keys of tasks whose answers are text."""

    max_new_tokens: Count = Field(256, description="largest length of a generated answer, in tokens")
    loss_on: Literal["response", "sequence"] = Field("response", description="the tokens in the loss")
    beams: Count = Field(1, description="number of beams of beam search; 1 is greedy")
    tokenize: Literal["apart", "together"] = Field(
        "apart", description="tokenize prompt and response separately, or as one text like the papers' code"
    )
    begin_token: BeginToken = Field(
        "tokenizer", description="begin token before a prompt; tokenizer: by the tokenizer's own setting"
    )


@dataclass(frozen=True)
class Conversation:
    """A prompt that the tokenizer's own chat template turns into text: (role, content) of each message."""

    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TextExample:
    """A training example of a text task; the loss covers the response and the end-of-sequence token."""

    prompt: str | Conversation
    response: str


@dataclass(frozen=True)
class EvaluationSet:
    """Fields that every evaluation has."""

    name: str
    version: int
    dataset: str  # catalogue name
    split: str


@dataclass(frozen=True)
class Generation(EvaluationSet):
    """An evaluation set whose answers are generated; every scorer grades the same generated text."""

    prompt: Callable[[Row], str | Conversation]
    target: Callable[[Row], str]
    scorers: Mapping[str, Scorer]
    headline: str  # the scorer to rank by
    max_new_tokens: int
    stop: Sequence[str] = ()
    beams: int = 1
    row_of: Callable[[str], Row] | None = None  # makes a row from a gold answer, for scorers that read other columns


def graded(gold: Callable[[Row], str], grader: Callable[[str, str], float | None]) -> Scorer:
    """The scorer that grades a generated text against gold(row)."""
    return lambda row, text: grader(gold(row), text)


@dataclass(frozen=True)
class Choice(EvaluationSet):
    """An evaluation set answered by ranking choices by log-likelihood."""

    prompt: Callable[[Row], str | Conversation]
    choices: Callable[[Row], Sequence[str]]
    gold: Callable[[Row], int]
    headline: ClassVar[str] = "likelihood"  # its only scorer


@dataclass(frozen=True)
class Labelled(EvaluationSet):
    """An evaluation set of a classifier (or regressor): metrics of predicted against true labels."""

    metrics: Sequence[str]  # names known to evaluation/metrics.py: accuracy, f1, matthews, pearson, spearman
    headline: str


@dataclass(frozen=True)
class HeldOut(EvaluationSet):
    """An evaluation set of held-out responses: reports their loss and perplexity and, if `answered` is given, scores of
    generated answers.

    The headline is that of `answered`, or the loss without it.
    """

    example: Callable[[Row], TextExample]
    answered: Generation | Choice | None = None


Evaluation = Generation | Choice | Labelled | HeldOut


def generation_of(evaluation: Evaluation | None) -> Generation | None:
    """The part of an evaluation that is answered by generation, if any."""
    if isinstance(evaluation, HeldOut):
        evaluation = evaluation.answered
    return evaluation if isinstance(evaluation, Generation) else None


class Task:
    """Base of all tasks."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    label_names: Sequence[str] = ()  # classification and vision; empty for regression
    num_labels: int | None = None  # outputs of the new head that trains with the method; None: the task needs no head
    classes: str | None = None  # column of the class in users' own files; sets of the catalogue declare theirs
    members: Sequence[str] = ()  # tasks of an aggregate, each a run of its own; an aggregate itself is never trained

    def __init__(self, config: Any) -> None:
        self.config = config

    def checks(self) -> Mapping[str, ColumnCheck]:
        """Checks of the columns of users' own files; sets of the catalogue declare theirs."""
        return {}

    def training_example(self, row: Row) -> Any:
        """A row of the training set as a TextExample (kind text); other families: see their base files."""
        raise NotImplementedError

    def trains_on(self) -> Callable[[Row], bool] | None:
        """Selects the training rows to use, before any limit is applied; None: all rows."""
        return None

    def evaluations(self) -> Sequence[Evaluation]:
        """The evaluation sets, in the order of the tables."""
        raise NotImplementedError

    def means(self) -> Mapping[str, Sequence[str]]:
        """Means that tables print: name of the mean -> names of evaluations or other means, equally weighted."""
        return {}


def _module_of(name: str) -> str:
    """The name of the module that registers a task: glue for glue/rte."""
    return name.partition("/")[0].replace("-", "_")


TASKS: ClassRegistry[Task, TaskConfig] = ClassRegistry("task", "sdsbench.tasks", _module_of)
"""A name is looked up in the module of sdsbench/tasks that is named by its first part, then in installed plugins."""
register, lookup, build = TASKS.decorator, TASKS.lookup, TASKS.build
