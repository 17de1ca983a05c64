"""Retention: lm-eval tasks and the loss of a text, scored before and after training to measure forgetting.

The first measurement uses the base model without an adapter, not the model at step 0: some methods change the model
before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sdsbench.core.errors import Unavailable
from sdsbench.data.sources import Rows
from sdsbench.evaluation.evaluation_config import EvalConfig
from sdsbench.evaluation.held_out import TextObjective, loss_scores, row_losses
from sdsbench.evaluation.lm_eval_tasks import Watch, evaluate_named
from sdsbench.evaluation.text import Evaluated
from sdsbench.training.tokens import EncodedText

WINDOW = 512  # a text is split into windows of this many tokens


def retained(
    model: Any,
    objective: TextObjective,
    tokenizer: Any,
    config: EvalConfig,
    root: str | None,
    stage: str,
    padded: bool,
    text: Rows | None,
    watch: Watch,
) -> Iterator[Evaluated]:
    """Scores of every task of eval.also, then of eval.text. Raises Unavailable if one of them cannot be evaluated."""
    windows = None if text is None else _windows(text, tokenizer)
    for name in config.also:
        yield evaluate_named(
            model, tokenizer, name, stage, config.batch_size, root, config.limit, config.order, padded, watch
        )
    if windows is not None:
        yield _text_loss(model, objective, windows, stage, config.batch_size, watch)


def _windows(text: Rows, tokenizer: Any) -> list[EncodedText]:
    """Split a text into windows without context of each other; windows without a target token are left out."""
    cut = (
        EncodedText(tuple(ids[start : start + WINDOW]), 0)
        for row in text
        for ids in [tokenizer(row["text"], add_special_tokens=False)["input_ids"]]
        for start in range(0, len(ids), WINDOW)
    )
    windows = [window for window in cut if window.targets]
    if not windows:
        raise Unavailable("eval.text: no text of two tokens; accepted: a longer one")
    return windows


def _text_loss(
    model: Any, objective: TextObjective, windows: Sequence[EncodedText], stage: str, batch_size: int, watch: Watch
) -> Evaluated:
    """Loss per token of a text, in nats: a cheap measure of retention that needs no task."""
    with watch("text", len(windows)) as progress:
        losses = row_losses(model, objective, windows, batch_size, progress)
    scores = [
        score.model_copy(update={"retention": True}) for score in loss_scores("text", 1, stage, losses, headline=True)
    ]
    samples = [{"index": i, "id": str(i), "scores": {"loss": loss}} for i, loss in enumerate(losses)]
    return Evaluated(scores, samples)
