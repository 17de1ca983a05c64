"""Log-likelihoods of continuations, without padding: prompts and choices laid end to end (training/attention.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sdsbench.training.attention import packed
from sdsbench.training.causal import prompt_ids


@torch.inference_mode()
def continuation_log_likelihoods(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[tuple[float, bool]]:
    """Per (prompt, continuation): the continuation's summed log-probability, and whether greedy decoding gives it."""
    device = next(model.parameters()).device
    encoded = [
        (prompt_ids(prompt, tokenizer), tokenizer(continuation, add_special_tokens=False)["input_ids"])
        for prompt, continuation in pairs
    ]
    order = sorted(range(len(pairs)), key=lambda i: (-len(encoded[i][0]) - len(encoded[i][1]), i))
    results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for i, result in zip(batch, _score(model, [encoded[i] for i in batch], device), strict=True):
            results[i] = result
        progress(len(batch))
    return results


def _score(model: Any, batch: Sequence[tuple[list[int], list[int]]], device: torch.device) -> list[tuple[float, bool]]:
    lengths = [len(prompt) + len(continuation) for prompt, continuation in batch]
    ids = torch.tensor([t for prompt, continuation in batch for t in prompt + continuation], device=device)[None]
    positions = torch.cat([torch.arange(length) for length in lengths]).to(device)[None]
    with packed(model):
        hidden = model.base_model(
            input_ids=ids, position_ids=positions, use_cache=False, segment_lengths=lengths
        ).last_hidden_state[0]
    results, start = [], 0
    for (prompt, continuation), length in zip(batch, lengths, strict=True):
        rows = hidden[start + len(prompt) - 1 : start + length - 1]
        logits = model.get_output_embeddings()(rows).float()
        softcap = getattr(model.config, "final_logit_softcapping", None)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        gold = torch.tensor(continuation, device=device)[:, None]
        total = logits.log_softmax(-1).gather(1, gold).double().sum()
        results.append((float(total), bool((logits.argmax(-1, keepdim=True) == gold).all())))
        start += length
    return results
