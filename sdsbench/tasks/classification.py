"""Code shared by sentence and image classification: configuration keys, aggregates of tasks, the batch protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from sdsbench.tasks.base import Evaluation, Row, Task, TaskConfig

if TYPE_CHECKING:
    from torch import Tensor


class AggregateConfig(TaskConfig):
    """Several tasks that are run separately: a runner replaces the aggregate by its `members` before any other code
    uses it."""

    members: list[str] = Field(min_length=1, description="tasks, each a run of its own")


class Aggregate(Task):
    """A list of tasks and the means to print over them; it is never trained itself."""

    def __init__(self, config: AggregateConfig) -> None:
        super().__init__(config)
        self.members = tuple(config.members)

    def evaluations(self) -> Sequence[Evaluation]:
        return []


class LabelledTask(Task):
    """A task with one label per example; `label_names` is empty for regression."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self.num_labels = len(self.label_names) or 1  # one output for regression

    @property
    def regression(self) -> bool:
        return not self.label_names

    def asked(self, row: Row, index: int) -> str:
        """The row's question as stored in its sample: the sentences, or the image's identity."""
        raise NotImplementedError


class Batcher(Protocol):
    """Encodes rows as examples (each with `length` in positions and `label`) and collates them into the model's
    inputs."""

    task: Any  # a LabelledTask

    @property
    def max_length(self) -> int | None: ...  # longer examples are cut to so many tokens; None: they have no length

    def encode_all(self, rows: Any) -> Sequence[Any]: ...
    def lengths(self, examples: Sequence[Any]) -> list[int]: ...
    def collate(self, examples: Sequence[Any]) -> Mapping[str, Tensor]: ...
