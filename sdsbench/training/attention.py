"""Attention over sequences laid end to end, so that no position of a batch is padding.

A micro-batch of lengths l_1 .. l_k is one row of sum(l) tokens; every layer but attention treats tokens alone, and
attention here looks at one sequence at a time. Registered with transformers as an attention implementation; which
lengths hold travels through the model's keyword arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "sdsbench_packed"


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segment_lengths: Sequence[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment.

    query 1 x heads x tokens x head size; key and value with fewer heads where the model groups queries; returns
    1 x tokens x heads x head size. `softcap` and `sliding_window` as Gemma-2 and Mistral use them.
    """
    pieces = zip(*(tensor.split(list(segment_lengths), dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [_attend(q, k, v, scaling, softcap, sliding_window) for q, k, v in pieces]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, softcap: float | None, window: int | None
) -> Tensor:
    length, grouped = q.shape[2], q.shape[1] != k.shape[1]
    if softcap is None and (window is None or length <= window):
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
    positions = torch.arange(length, device=q.device)
    distance = positions[:, None] - positions[None, :]
    seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling, enable_gqa=grouped)
    if grouped:
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v


AttentionInterface.register(NAME, packed_attention)


@contextmanager
def packed(model: Any) -> Iterator[None]:
    """Inside: the model's forward takes packed rows and `segment_lengths`."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
