"""Attention over packed sequences: they lie end to end in one row, so that no position of a batch is padding.

Sequences of lengths l_1 .. l_k form one row of sum(l) tokens. All layers except attention treat each token by itself,
and this attention does not cross sequence borders. It is registered with transformers as an attention implementation
and receives the lengths through the model's keyword arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from sdsbench.training.dropout import seed_attention, segment_seeds

NAME = "sdsbench_packed"
LARGEST_HEAD = 256  # largest head size that torch's flash attention kernels accept
PADDING_MULTIPLE = 64  # 16-bit passes on a CPU are padded to a multiple of this many tokens


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segment_lengths: Sequence[int],
    continuations: Sequence[Sequence[int]] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each segment, causal unless `module.is_causal` is false (encoders).

    `query` is 1 x heads x tokens x head size; `key` and `value` have fewer heads in models with grouped queries.
    Returns 1 x tokens x heads x head size. `softcap` and `sliding_window` as in Gemma-2 and Mistral. `continuations`,
    if given, lists for each segment the lengths of alternative endings; each ending attends to the shared prefix and to
    itself only. `dropout` is the base model's dropout of attention weights (encoders, GPT-2).
    """
    causal = getattr(module, "is_causal", True)
    if continuations is None and _varlen_serves(query, softcap, dropout):
        return _varlen(query, key, value, tuple(segment_lengths), scaling, sliding_window, causal), None
    dtype = query.dtype
    if _by_onednn(query.device, dtype):  # it would compile code for every sequence length: slow, and memory would grow
        query, key, value = query.float(), key.float(), value.float()
    pieces = zip(*(tensor.split(list(segment_lengths), dim=2) for tensor in (query, key, value)), strict=True)
    seeds = segment_seeds(len(segment_lengths)) if dropout else []
    ends = continuations or [()] * len(segment_lengths)
    outputs = []
    for number, (q, k, v) in enumerate(pieces):
        if seeds:
            seed_attention(seeds[number], q.device)
        outputs.append(_attend(q, k, v, causal, scaling, dropout, softcap, sliding_window, ends[number]))
    return torch.cat(outputs, dim=2).transpose(1, 2).to(dtype), None


def padding_length(tokens: int, dtype: torch.dtype, device: torch.device) -> int:
    """Number of padding tokens to append as one more sequence without loss, so that few distinct shapes occur."""
    return -tokens % PADDING_MULTIPLE if _by_onednn(device, dtype) else 0


def _by_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes the matrix products; it compiles and caches code for every new shape.

    On a CPU it computes the 16-bit products; another library computes those in fp32.
    """
    return device.type == "cpu" and dtype.itemsize == 2


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    window: int | None,
    continuations: Sequence[int],
) -> Tensor:
    length, grouped = q.shape[2], q.shape[1] != k.shape[1]
    masked = causal and (continuations or softcap is not None or (window is not None and length > window))
    seen = _seen(length, continuations, window, q.device) if masked else None
    if softcap is None:
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, dropout_p=dropout, is_causal=causal and not masked, scale=scaling,
            enable_gqa=grouped,
        )  # fmt: skip
    if grouped:
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
    return torch.dropout(weights, dropout, True) @ v


def _seen(length: int, continuations: Sequence[int], window: int | None, device: torch.device) -> Tensor:
    """Boolean mask, length x length: true where the row's position attends to the column's."""
    start = length - sum(continuations)
    owner, position = torch.zeros(length, dtype=torch.long), torch.arange(length)
    for number, width in enumerate(continuations, 1):
        owner[start : start + width] = number
        position[start : start + width] = torch.arange(width) + length - sum(continuations)
        start += width
    distance = position[:, None] - position[None, :]
    seen = (distance >= 0) & ((owner[None, :] == 0) | (owner[None, :] == owner[:, None]))
    return (seen if window is None else seen & (distance < window)).to(device)


def reason_against_varlen(
    device: torch.device, dtype: torch.dtype, head_size: int, softcap: float | None, dropout: float
) -> str | None:
    """The reason why attention runs sequence by sequence on this device; None if one kernel handles all sequences.

    The limits are those of torch's flash attention kernels. A meta device counts as CUDA (meta_device.py).
    """
    if _varlen_kernel() is None:
        return f"torch {torch.__version__} has no varlen_attn with windows and a scale"
    if device.type == "cuda" and (capability := _capability(device)) < (8, 0):
        return f"the one kernel needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"the one kernel computes in 16 bits, this run in {str(dtype).removeprefix('torch.')}"
    if softcap is not None:
        return "the one kernel caps no scores, this model's are capped"
    if dropout:
        return "the one kernel drops no attention weights, this model does in training"
    if head_size > LARGEST_HEAD or head_size % 8:
        return f"the one kernel takes head sizes up to {LARGEST_HEAD} in multiples of 8, this model has {head_size}"
    return None


def _varlen_serves(query: Tensor, softcap: float | None, dropout: float) -> bool:
    on_gpu = query.device.type in ("cuda", "meta")
    return on_gpu and reason_against_varlen(query.device, query.dtype, query.shape[-1], softcap, dropout) is None


@lru_cache(maxsize=8)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@lru_cache(maxsize=1)
def _varlen_kernel() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if not {"window_size", "scale"} <= set(known):
        return None
    return varlen_attn if "enable_gqa" in known else _without_grouping(varlen_attn)


def _without_grouping(kernel: Any) -> Any:
    """Drop `enable_gqa`, which torch 2.11's kernel does not accept: it infers grouped queries from the shapes."""

    def call(*arguments: Any, enable_gqa: bool, **settings: Any) -> Tensor:
        return kernel(*arguments, **settings)

    return call


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    window: int | None,
    causal: bool,
) -> Tensor:
    """Attention of all segments in one kernel call, without copies; returns 1 x tokens x heads x head size."""
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    starts, longest = _starts(lengths, query.device), max(lengths)
    sides = (-1 if window is None else window - 1, 0 if causal else -1)
    grouped = query.shape[1] != key.shape[1]
    kernel = _varlen_kernel()
    y = kernel(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=sides, enable_gqa=grouped)
    return y[None]


@lru_cache(maxsize=8)
def _starts(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Start of each segment and the end of the last (int32); cached, so built once per pass, not once per layer."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


AttentionInterface.register(NAME, packed_attention)


@contextmanager
def packed(model: Any) -> Iterator[None]:
    """While active, the model's forward accepts packed rows and `segment_lengths`."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
