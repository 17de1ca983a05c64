"""Loss and perplexity of held-out responses, row by row, and optionally the scores of generated answers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from sdsbench.core.record import Score
from sdsbench.data.sources import Rows
from sdsbench.evaluation.metrics import mean_and_error
from sdsbench.evaluation.text import Answering, Evaluated, evaluate_text, own_answers
from sdsbench.models.positions import check_length
from sdsbench.tasks.base import BeginToken, HeldOut, TextTaskConfig
from sdsbench.training.tokens import EncodedText, encode, prompt_text

WHOLE = 10**9  # no token limit: held-out responses are not truncated at train.max_length


class TextObjective(Protocol):
    """The parts of CausalObjective (training/causal.py) that this module uses."""

    def losses(self, model: Any, shares: Sequence[Sequence[Any]], device: torch.device) -> list[torch.Tensor]: ...


def evaluate_held_out(
    model: Any, objective: TextObjective, tokenizer: Any, config: TextTaskConfig, evaluation: HeldOut, rows: Rows,
    stage: str, batch_size: int, progress: Callable[[int], None], begin_token: BeginToken, padded: bool,
    answering: Answering = own_answers,
) -> Evaluated:  # fmt: skip
    """Loss and perplexity over all responses, plus scores of generated answers if the evaluation has scorers."""
    examples = [evaluation.example(row) for row in rows]
    on_responses = config.model_copy(update={"loss_on": "response"})
    encoded = list(encode(examples, tokenizer, WHOLE, on_responses))
    if evaluation.answered is not None:
        found = evaluate_text(
            model, tokenizer, evaluation.answered, rows, stage, batch_size, progress, begin_token, padded, answering
        )
        losses = row_losses(model, objective, encoded, batch_size, lambda _: None)
    else:
        samples = [_sample(i, prompt_text(e.prompt, tokenizer), e.response) for i, e in enumerate(examples)]
        found = Evaluated([], samples)
        losses = row_losses(model, objective, encoded, batch_size, progress)
    for sample, loss in zip(found.samples, losses, strict=True):
        sample["scores"]["loss"] = loss
    scores = loss_scores(evaluation.name, evaluation.version, stage, losses, headline=not found.scores)
    return Evaluated([*found.scores, *scores], found.samples)


@torch.inference_mode()
def row_losses(
    model: Any,
    objective: TextObjective,
    encoded: Sequence[EncodedText],
    batch_size: int,
    progress: Callable[[int], None],
) -> list[float]:
    """One number per row, in nats: the row's summed loss divided by the mean number of targets over all rows.

    The mean over rows is then the loss per target token, so that tests over rows test the loss that tables show. Raises
    Unavailable for a row longer than the model's context.
    """
    device = next(model.parameters()).device
    longest = max(example.length for example in encoded)
    check_length(model, longest, "a row whose loss is scored", "Shorten it, or leave it out.")
    model.eval()
    order = sorted(range(len(encoded)), key=lambda i: (-encoded[i].length, i))
    found = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        sums = objective.losses(model, [[encoded[i]] for i in batch], device)
        for i, total in zip(batch, sums, strict=True):
            found[i] = float(total)
        progress(len(batch))
    mean_targets = sum(example.targets for example in encoded) / len(encoded)
    return [total / mean_targets for total in found]


def loss_scores(name: str, version: int, stage: str, losses: Sequence[float], headline: bool) -> list[Score]:
    """The scores `loss` (nats per token) and `perplexity` (its exponential) of an evaluation."""
    loss, error = mean_and_error(losses)
    shared = {"evaluation": name, "version": version, "stage": stage, "n": len(losses), "unit": "number"}
    first = Score(scorer="loss", value=loss, stderr=error, better="lower", headline=headline, **shared)  # type: ignore[arg-type]
    perplexity = math.exp(min(loss, 700.0))
    second = {"value": perplexity, "stderr": None if error is None else perplexity * error, "headline": False}
    return [first, first.model_copy(update={"scorer": "perplexity", **second})]


def _sample(index: int, prompt: str, target: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{prompt}\x1f{target}".encode()).hexdigest()
    return {"index": index, "id": f"{index}-{digest[:12]}", "prompt": prompt, "target": target, "scores": {}}
