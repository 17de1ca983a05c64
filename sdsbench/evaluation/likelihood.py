"""Log-likelihoods of continuations, without padding and with one computation of each prompt.

A row is a prompt followed by all its continuations. Each continuation attends to the prompt and to itself only, at the
positions that it would have alone (training/attention.py). Rows are packed end to end. Models for which packing changes
the loss (training/own_loss.py) instead get every pair of prompt and continuation in padded batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sdsbench.core.errors import Unavailable
from sdsbench.evaluation.finite import finite
from sdsbench.models.positions import learned_positions
from sdsbench.tasks.base import BeginToken
from sdsbench.training.attention import packed
from sdsbench.training.tokens import plain_ids, prompt_ids

_Row = tuple[tuple[int, ...], list[int]]  # prompt tokens, indices of the pairs with this prompt


@torch.inference_mode()
def continuation_log_likelihoods(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
    begin_token: BeginToken = "tokenizer",
    padded: bool = False,
    on_cut: Callable[[int, int], None] = lambda pair, tokens: None,
) -> list[tuple[float, bool]]:
    """For each (prompt, continuation): the continuation's summed log-probability (nats), and whether it is greedy.

    If a pair exceeds the model's context, tokens are removed from the start of the prompt, and `on_cut(index of the
    pair, number of removed tokens)` is called.
    """
    device = next(model.parameters()).device
    prompts = [
        ids or _first_token(tokenizer) for ids in prompt_ids([prompt for prompt, _ in pairs], tokenizer, begin_token)
    ]
    encoded = list(zip(prompts, plain_ids([text for _, text in pairs], tokenizer), strict=True))
    held = learned_positions(model)
    for number, (prompt, continuation) in enumerate(encoded):
        if held is not None and (over := min(len(prompt) - 1, len(prompt) + len(continuation) - held)) > 0:
            encoded[number] = (prompt[over:], continuation)
            on_cut(number, over)
    if padded:
        return _padded(model, encoded, batch_size, progress, device)
    rows: dict[tuple[int, ...], list[int]] = {}  # prompt -> indices of its pairs
    for i, (prompt, _) in enumerate(encoded):
        rows.setdefault(tuple(prompt), []).append(i)
    by_size = sorted(rows.items(), key=lambda row: (-len(row[0]) - sum(len(encoded[i][1]) for i in row[1]), row[1]))
    results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    for batch in _batches(by_size, batch_size):
        found = _score(model, [(list(prompt), [encoded[i][1] for i in members]) for prompt, members in batch], device)
        for i, result in zip([i for _, members in batch for i in members], found, strict=True):
            results[i] = result
        progress(sum(len(members) for _, members in batch))
    return results


def _first_token(tokenizer: Any) -> list[int]:
    """What a continuation of an empty prompt follows, since some token must predict its first: lm-eval's choice."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return [token]
    raise Unavailable(
        "the likelihood of a continuation of an empty prompt: accepted: a model whose tokenizer has a token for the "
        "beginning or the end of a text; this one has neither"
    )


def _padded(
    model: Any,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    batch_size: int,
    progress: Callable[[int], None],
    device: torch.device,
) -> list[tuple[float, bool]]:
    """Results in the order of `pairs`, from padded batches (longest first) in the model's own forward pass."""
    order = sorted(range(len(pairs)), key=lambda i: (-sum(map(len, pairs[i])), i))
    results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    for start in range(0, len(order), batch_size):
        batch = [pairs[i] for i in order[start : start + batch_size]]
        width = max(len(prompt) + len(continuation) for prompt, continuation in batch)
        rows = [[*prompt, *continuation] for prompt, continuation in batch]
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for i, (prompt, continuation), own in zip(order[start:], batch, logits, strict=False):
            results[i] = _logit_result(own[len(prompt) - 1 : len(prompt) + len(continuation) - 1].float(), continuation)
        progress(len(batch))
    return results


def _batches(rows: Sequence[_Row], pairs: int) -> Iterator[list[_Row]]:
    """Split rows into batches of at most `pairs` continuations, but at least one row."""
    batch: list[_Row] = []
    for row in rows:
        if batch and sum(len(members) for _, members in batch) + len(row[1]) > pairs:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score(
    model: Any, rows: Sequence[tuple[list[int], list[list[int]]]], device: torch.device
) -> list[tuple[float, bool]]:
    """Results of every continuation, in order, from one packed forward pass."""
    lengths = [len(prompt) + sum(map(len, continuations)) for prompt, continuations in rows]
    ids, positions = [], []
    for prompt, continuations in rows:
        ids += prompt + [token for continuation in continuations for token in continuation]
        positions += list(range(len(prompt)))
        for continuation in continuations:
            positions += range(len(prompt), len(prompt) + len(continuation))
    with packed(model):
        hidden = model.base_model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            segment_lengths=lengths,
            continuations=[list(map(len, continuations)) for _, continuations in rows],
        ).last_hidden_state[0]
    results, start = [], 0
    for (prompt, continuations), length in zip(rows, lengths, strict=True):
        last, here = start + len(prompt) - 1, start + len(prompt)
        for continuation in continuations:
            predicting = torch.cat([hidden[last : last + 1], hidden[here : here + len(continuation) - 1]])
            results.append(_result(model, predicting[: len(continuation)], continuation))
            here += len(continuation)
        start += length
    return results


def _result(model: Any, predicting: Tensor, continuation: Sequence[int]) -> tuple[float, bool]:
    """(summed log-probability, whether every token is the likeliest) of a continuation, from hidden states t x d."""
    logits = model.get_output_embeddings()(predicting).float()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return _logit_result(logits, continuation)


def _logit_result(logits: Tensor, continuation: Sequence[int]) -> tuple[float, bool]:
    """As `_result`, from the logits t x V that predict each token. Raises TrainingFailed if they are not finite."""
    gold = torch.tensor(continuation, device=logits.device)[:, None]
    total = finite(logits).log_softmax(-1).gather(1, gold).double().sum()
    return float(total), bool((logits.argmax(-1, keepdim=True) == gold).all())
