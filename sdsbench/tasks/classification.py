"""What classifiers of sentences and of images share: keys, the aggregate of several tasks, the form of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sdsbench.core.errors import Problem
from sdsbench.tasks.base import Evaluation, Task, TaskConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LabelledTaskConfig(TaskConfig):
    pass


@dataclass
class AggregateConfig(TaskConfig):
    """Several tasks, each a run of its own: a runner expands `members` before anything else looks at the task."""

    members: list[str] = field(default_factory=list)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if not self.members:
            yield Problem("task.members", self.members, "at least one task name")


class Aggregate(Task):
    """Only a list of tasks and the means to print over them; never trained itself."""

    def evaluations(self) -> Sequence[Evaluation]:
        return []


class LabelledTask(Task):
    """A task with one label per example; `label_names` is empty for regression."""

    @property
    def num_labels(self) -> int:
        """Outputs of the classifier head: one per label, or 1 for regression."""
        return len(self.label_names) or 1

    @property
    def regression(self) -> bool:
        return not self.label_names


class Batcher(Protocol):
    """Rows -> encoded examples (each with its `length` in positions and its `label`) -> the model's inputs."""

    def encode_all(self, rows: Any) -> Sequence[Any]: ...
    def lengths(self, examples: Sequence[Any]) -> list[int]: ...
    def collate(self, examples: Sequence[Any]) -> Mapping[str, Tensor]: ...
