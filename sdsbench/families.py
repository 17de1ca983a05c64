"""The three families of tasks behind one interface: how rows become loss, and how a model becomes scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdsbench.configuration.schema import RunConfig
from sdsbench.data.sources import Rows
from sdsbench.evaluation.text import Evaluated, evaluate_text
from sdsbench.models.load import LoadedModel
from sdsbench.tasks.base import Evaluation, Task
from sdsbench.training.causal import CausalObjective


class Family(Protocol):
    """What a run asks of its task's family."""

    def encode_all(self, rows: Rows) -> list[Any]: ...
    def positions(self, examples: Sequence[Any]) -> int: ...
    def loss(self, model: Any, examples: Sequence[Any], device: torch.device) -> Tensor: ...
    def unfreeze_head(self, model: Any, seed: int) -> list[torch.nn.Parameter]: ...
    def evaluate(
        self,
        model: Any,
        evaluation: Evaluation,
        rows: Rows,
        stage: str,
        batch_size: int,
        progress: Callable[[int], None],
    ) -> Evaluated: ...


class TextFamily(CausalObjective):
    """Decoders on prompts and responses."""

    def unfreeze_head(self, model: Any, seed: int) -> list[torch.nn.Parameter]:
        """A language model's head is part of the base: nothing new trains."""
        return []

    def evaluate(
        self, model: Any, evaluation: Any, rows: Rows, stage: str, batch_size: int, progress: Callable[[int], None]
    ) -> Evaluated:
        return evaluate_text(model, self.tokenizer, evaluation, rows, stage, batch_size, progress)


def family_of(task: Task, loaded: LoadedModel, config: RunConfig) -> Family:
    """The family that a task belongs to."""
    return TextFamily(task, loaded.tokenizer, config.train.max_length)
