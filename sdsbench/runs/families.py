"""The three families of tasks (text, sentences, images) behind one interface for training loss and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.data.sources import Rows
from sdsbench.evaluation.classifiers import evaluate_labelled
from sdsbench.evaluation.generation import check_generation
from sdsbench.evaluation.held_out import evaluate_held_out
from sdsbench.evaluation.lm_eval_tasks import Watch
from sdsbench.evaluation.retention import retained
from sdsbench.evaluation.text import Answering, Evaluated, evaluate_text, own_answers
from sdsbench.models.head import initialise_head, unfreeze_head
from sdsbench.models.load import LoadedModel
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks.base import Evaluation, HeldOut, Kind, Task, generation_of
from sdsbench.tasks.classification import Batcher, LabelledTask
from sdsbench.tasks.images import ImageBatcher, Transform
from sdsbench.tasks.sentences import SentenceBatcher
from sdsbench.training.assemble import Trainee
from sdsbench.training.causal import CausalObjective
from sdsbench.training.classifier_objective import LabelledObjective


class Family(Trainee, Protocol):
    """Interface between a run and its task's family."""

    @property
    def max_length(self) -> int | None: ...  # longer examples are truncated to this many tokens; None: images
    @property
    def packed(self) -> bool: ...
    def encode_all(self, rows: Rows) -> Sequence[Any]: ...
    def check(self, model: Any, examples: Sequence[Any], device: torch.device) -> None: ...
    def longest(self, examples: Sequence[Any]) -> int: ...
    def outputs(self, model: Any, example: Any, device: torch.device, tokens: int) -> Tensor: ...
    def retained(
        self, model: Any, config: RunConfig, stage: str, text: Rows | None, watch: Watch
    ) -> Iterator[Evaluated]: ...
    def evaluate(
        self,
        model: Any,
        evaluation: Evaluation,
        rows: Rows,
        stage: str,
        batch_size: int,
        progress: Callable[[int], None],
        answering: Answering = own_answers,
    ) -> Evaluated: ...


class TextFamily(CausalObjective):
    """Decoders on prompts and responses."""

    def check(self, model: Any, examples: Sequence[Any], device: torch.device) -> None:
        """As CausalObjective.check; also checks batched generation if the task generates answers."""
        super().check(model, examples, device)
        if any(generation_of(evaluation) for evaluation in self.task.evaluations()):
            check_generation(model, examples)

    def unfreeze_head(self, model: Any) -> list[torch.nn.Parameter]:
        """Returns no parameters: a language model's head belongs to the frozen base.

        Raises ConfigError if the method adapts the head. The loss uses the head's weight directly, in chunks
        (training/cross_entropy.py), so an adapter there would be counted as trainable but never be trained.
        """
        if type(head := model.get_output_embeddings()) is not torch.nn.Linear:
            name = next(name for name, module in model.named_modules() if module is head)
            advice = "The loss applies the output layer's own weight: an adapter there would never train."
            raise ConfigError([Problem("method.targets", name, "layers before the output layer", advice)])
        return []

    def evaluate(
        self, model: Any, evaluation: Any, rows: Rows, stage: str, batch_size: int, progress: Callable[[int], None],
        answering: Answering = own_answers,
    ) -> Evaluated:  # fmt: skip
        begin = self.task.config.begin_token
        if isinstance(evaluation, HeldOut):
            return evaluate_held_out(
                model, self, self.tokenizer, self.task.config, evaluation, rows, stage, batch_size, progress, begin,
                self.padded, answering,
            )  # fmt: skip
        return evaluate_text(
            model, self.tokenizer, evaluation, rows, stage, batch_size, progress, begin, self.padded, answering
        )

    def retained(
        self, model: Any, config: RunConfig, stage: str, text: Rows | None, watch: Watch
    ) -> Iterator[Evaluated]:
        """Retention scores (eval.also, eval.text)."""
        return retained(model, self, self.tokenizer, config.eval, config.data.root, stage, self.padded, text, watch)


class LabelledFamily(LabelledObjective):
    """Encoders on sentences and vision models on images, with a new head that is trained along with the method."""

    def __init__(self, batcher: Batcher, task: LabelledTask, model: Any, seed: int) -> None:
        super().__init__(batcher, task.regression, model)
        initialise_head(model, seed)

    def unfreeze_head(self, model: Any) -> list[torch.nn.Parameter]:
        return unfreeze_head(model)

    def retained(
        self, model: Any, config: RunConfig, stage: str, text: Rows | None, watch: Watch
    ) -> Iterator[Evaluated]:
        return iter(())

    def evaluate(
        self, model: Any, evaluation: Any, rows: Rows, stage: str, batch_size: int, progress: Callable[[int], None],
        answering: Answering = own_answers,
    ) -> Evaluated:  # fmt: skip
        return evaluate_labelled(model, self.batcher, evaluation, rows, stage, batch_size, progress)


def family_of(task: Task, loaded: LoadedModel, config: RunConfig) -> Family:
    """The family of a task, set up for this model; initializes the model's new head, if it has one."""
    return _FAMILIES[task.kind](task, loaded, config)


def _of_text(task: Any, loaded: LoadedModel, config: RunConfig) -> Family:
    return TextFamily(task, loaded.tokenizer, config.train.max_length)


def _of_sentences(task: Any, loaded: LoadedModel, config: RunConfig) -> Family:
    batcher = SentenceBatcher(task, loaded.tokenizer, config.train.max_length)
    return LabelledFamily(batcher, task, loaded.model, config.seeds.init)


def _of_images(task: Any, loaded: LoadedModel, config: RunConfig) -> Family:
    batcher = ImageBatcher(
        task, Transform.of(loaded.model.config, loaded.folder, other_size=config.model.resampled_size is not None)
    )
    return LabelledFamily(batcher, task, loaded.model, config.seeds.init)


_FAMILIES: Mapping[Kind, Callable[[Any, LoadedModel, RunConfig], Family]] = {
    "text": _of_text, "classification": _of_sentences, "vision": _of_images,
}  # fmt: skip
