"""Scores record the floor that a model without learning reaches, and the number of answers cut at the limit."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sdsbench.data.sources import Rows
from sdsbench.evaluation import metrics
from sdsbench.evaluation.classifiers import evaluate_labelled
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.evaluation.score_floors import chance_floor, constant_floor
from sdsbench.evaluation.text import evaluate_text
from sdsbench.evaluation.validation_loss import mean_loss
from sdsbench.tasks.base import Choice, Generation, Labelled

LABELS = [1.0] * 7 + [0.0] * 3


def test_floor_of_a_metric_is_that_of_the_best_constant() -> None:
    assert constant_floor("accuracy", LABELS) == 0.7
    assert constant_floor("f1", LABELS) == pytest.approx(metrics.compute("f1", [1.0] * 10, LABELS)) != 0
    assert {constant_floor(name, LABELS) for name in ("matthews", "pearson", "spearman")} == {0.0}


def test_floor_of_choices_is_chance() -> None:
    assert chance_floor([2, 2, 4]) == pytest.approx((0.5 + 0.5 + 0.25) / 3)


class ModelWithOneWeight(nn.Module):
    """A stand-in for a model; only the device of its weight is read."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("learned", [False, True])
def test_classifier_records_floor_and_number_of_predicted_classes(
    monkeypatch: pytest.MonkeyPatch, learned: bool
) -> None:
    examples = [SimpleNamespace(label=label, length=1, targets=1) for label in LABELS]

    def logits(model, batcher, batch, device):
        labels = torch.tensor([example.label for example in batch])
        predicted = labels if learned else torch.ones(len(batch))
        return torch.stack([1 - predicted, predicted], dim=1)

    monkeypatch.setattr("sdsbench.evaluation.classifiers.class_logits", logits)
    task_facts = SimpleNamespace(label_names=("no", "yes"), asked=lambda row, index: f"row {index}")
    batcher = SimpleNamespace(task=task_facts, encode_all=lambda rows: examples, lengths=lambda some: [1] * len(some))
    task = Labelled("glue/rte", 1, "glue/rte", "validation", ["accuracy", "f1"], "accuracy")
    rows = [{} for _ in LABELS]
    scores = evaluate_labelled(ModelWithOneWeight(), batcher, task, rows, "trained", 4).scores  # type: ignore[arg-type]
    accuracy = next(score for score in scores if score.scorer == "accuracy")
    assert (accuracy.floor, accuracy.floor_of) == (0.7, "majority class")
    assert accuracy.classes == (2 if learned else 1)
    assert accuracy.value == (1.0 if learned else accuracy.floor)


ROWS = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(6)]


def rows() -> Rows:
    return Rows("gsm8k", "test", "embedded", None, ROWS, tuple(range(len(ROWS))))


def test_answers_that_reach_the_token_limit_are_counted_as_truncated(cpu_micro) -> None:
    """With a limit of two tokens every answer is cut; with a stop text, those that contain it are not."""

    def score(new_tokens: int, stop: tuple[str, ...]):
        task = Generation(
            "gsm8k", 1, "gsm8k", "test", lambda row: row["question"], lambda row: row["answer"],
            {"exact": lambda row, text: text == row["answer"]}, "exact", new_tokens, stop,
        )  # fmt: skip
        return evaluate_text(cpu_micro.model, cpu_micro.tokenizer, task, rows(), "trained", 4)

    cut = score(2, ())
    assert cut.scores[0].truncated == 6 and {sample["truncated"] for sample in cut.samples} == {True}
    assert cut.scores[0].floor is None  # generation has no floor; the untrained model is evaluated instead
    first = Counter(sample["response"][:1] for sample in cut.samples).most_common(1)[0][0]
    stopped = score(2, (first,))
    flags = {sample["index"]: sample["truncated"] for sample in stopped.samples}
    starts = {sample["index"]: sample["response"].startswith(first) for sample in cut.samples}
    assert flags == {index: not (begins or first in cut.samples[index]["response"]) for index, begins in starts.items()}
    assert stopped.scores[0].truncated == sum(flags.values()) < 6


def test_answer_that_ends_before_the_limit_is_not_truncated(cpu_micro) -> None:
    generator = Generator(cpu_micro.model, cpu_micro.tokenizer, 4)
    end = cpu_micro.tokenizer.eos_token_id
    request = Request("", 3, ())
    assert not generator._answer([5, 6, end], request).truncated
    assert generator._answer([5, 6, 7], request).truncated
    assert not generator._answer([5, 6], request).truncated


def test_choices_record_chance_as_floor(cpu_micro) -> None:
    task = Choice("boolq", 1, "boolq", "test", lambda row: row["question"], lambda row: [" yes", " no"], lambda row: 0)
    score = evaluate_text(cpu_micro.model, cpu_micro.tokenizer, task, rows(), "trained", 4).scores[0]
    assert (score.floor, score.floor_of, score.truncated) == (0.5, "chance", None)


def test_mean_loss_per_target_does_not_depend_on_the_batch_size() -> None:
    examples = [SimpleNamespace(targets=n, loss=0.5 * n * (n + 1)) for n in (1, 2, 5)]
    objective = SimpleNamespace(loss=lambda model, batch, device: torch.tensor(sum(e.loss for e in batch)))
    expected = sum(example.loss for example in examples) / 8
    for size in (1, 2, 8):
        assert mean_loss(ModelWithOneWeight(), objective, examples, size) == pytest.approx(expected)
