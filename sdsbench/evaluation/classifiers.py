"""Evaluation of classifiers of sentences and images: predictions of a model in memory, scored by standard metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sdsbench.core.record import Score
from sdsbench.data.sources import Rows
from sdsbench.evaluation import metrics
from sdsbench.evaluation.finite import finite
from sdsbench.evaluation.score_floors import constant_floor
from sdsbench.evaluation.text import Evaluated
from sdsbench.tasks.base import Labelled, Row
from sdsbench.tasks.classification import Batcher, LabelledTask
from sdsbench.training.classifier_logits import class_logits


def evaluate_labelled(
    model: Any,
    batcher: Batcher,
    evaluation: Labelled,
    rows: Rows,
    stage: str,
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluated:
    """Scores of every metric, and for each row the true label, the prediction and whether they agree.

    A model with one output predicts a value (regression); with more outputs, the class of the largest one.
    """
    examples = batcher.encode_all(rows)
    predictions, labels = predict(model, batcher, examples, batch_size, progress)
    scores = []
    for name in evaluation.metrics:
        value = metrics.compute(name, predictions, labels)
        scores.append(
            Score(
                evaluation=evaluation.name,
                version=evaluation.version,
                scorer=name,
                stage=stage,  # type: ignore[arg-type]
                value=value,
                stderr=_standard_error(name, value, len(labels)),
                n=len(labels),
                headline=name == evaluation.headline,
                floor=constant_floor(name, labels),
                floor_of="majority class" if name == "accuracy" else "constant",
                classes=len(set(predictions)),
            )
        )
    pairs = enumerate(zip(labels, predictions, strict=True))
    return Evaluated(scores, [_sample(batcher.task, rows[index], index, *pair) for index, pair in pairs])


@torch.inference_mode()
def predict(
    model: Any, batcher: Batcher, examples: Sequence[Any], batch_size: int, progress: Callable[[int], None]
) -> tuple[list[float], list[float]]:
    """(predictions, true labels) of all examples in their order: class numbers, or values in regression.

    Batches hold examples of similar length, longest first; each example is encoded once.
    """
    device = next(model.parameters()).device
    predictions, labels = [0.0] * len(examples), [0.0] * len(examples)
    lengths = batcher.lengths(examples)
    order = sorted(range(len(examples)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), batch_size):
        positions = order[start : start + batch_size]
        batch = [examples[i] for i in positions]
        logits_bc = finite(class_logits(model, batcher, batch, device))
        answers_b = logits_bc[:, 0] if logits_bc.shape[1] == 1 else logits_bc.argmax(-1)
        for position, example, answer in zip(positions, batch, answers_b.tolist(), strict=True):
            predictions[position], labels[position] = float(answer), float(example.label)
        progress(len(batch))
    return predictions, labels


def _standard_error(metric: str, value: float, count: int) -> float | None:
    """Standard error of an accuracy; None for other metrics, which have no closed form."""
    if metric != "accuracy" or count < 2:
        return None
    return math.sqrt(value * (1 - value) / (count - 1))


def _sample(task: LabelledTask, row: Row, index: int, label: float, prediction: float) -> dict[str, Any]:
    """One row of the samples file: the input, and label and prediction as class numbers and names."""
    names = task.label_names
    named = {"target_name": names[int(label)], "response_name": names[int(prediction)]} if names else {}
    return {
        "index": index,
        "id": str(index),
        "prompt": task.asked(row, index),
        "target": label,
        "response": prediction,
        **named,
        "scores": {"accuracy": float(label == prediction)},
    }
