"""Simulate a training step of a GPU on meta tensors: only shapes are computed, with the kernels that CUDA would use.

A meta tensor has no values and takes no memory, so the memory of a step of any size can be counted on any machine
(saved_bytes.py). torch's FakeTensorMode counts the same bytes but takes five times as long, and it cannot simulate CUDA
in a build of torch without CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
aten = torch.ops.aten


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """While active, a training step runs on meta tensors with CUDA's kernels; every number read from them is 1.

    Attention and dropout are replaced in torch.nn.functional, because torch would choose the CPU kernels there.
    """
    replaced: dict[str, Callable[..., Tensor]] = {"scaled_dot_product_attention": _attention, "dropout": _dropout}
    before = {name: getattr(functional, name) for name in replaced}

    def on_meta(name: str, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return (replaced if input.is_meta else before)[name](input, *args, **kwargs)

    try:
        for name in replaced:
            setattr(functional, name, partial(on_meta, name))
        with _ValuesOfMeta():
            yield
    finally:
        for name, function in before.items():
            setattr(functional, name, function)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The attention kernel that CUDA would choose: flash attention in 16 bits without a mask, else memory-efficient.

    The memory-efficient kernel does not support grouped queries: torch then uses plain matrix products, which keep all
    attention scores. A boolean mask becomes a bias in the query's type.
    """
    if attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if enable_gqa and query.shape[1] != key.shape[1]:
        return _attention_of_groups(query, key, value, attn_mask, dropout_p, is_causal, scale)
    bias = attn_mask
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, float("-inf"))
        bias = bias.expand(*query.shape[:3], key.shape[2])
    kernel = aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]


def _attention_of_groups(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, causal: bool, scale: float | None
) -> Tensor:
    """Attention with grouped queries by plain matrix products."""
    kernel = aten._scaled_dot_product_attention_math
    return kernel(query, key, value, mask, dropout, causal, None, scale=scale, enable_gqa=True)[0]


@contextmanager
def grouped_attention_as_on_cuda() -> Iterator[None]:
    """While active, attention with grouped queries keeps all scores on the CPU too, as CUDA does in fp32.

    So the memory of a real step on the CPU can be compared with that of a step on meta tensors.
    """
    name = "scaled_dot_product_attention"
    before = getattr(functional, name)

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if enable_gqa and query.shape[1] != key.shape[1]:
            return _attention_of_groups(query, key, value, attn_mask, dropout_p, is_causal, scale)
        return before(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    setattr(functional, name, attention)
    try:
        yield
    finally:
        setattr(functional, name, before)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """CUDA's fused dropout kernel, whose mask takes one byte for each value."""
    return torch.native_dropout(input, p, training)[0] if training and p > 0 else input


class _ValuesOfMeta(TorchDispatchMode):
    """A number read from a meta tensor is 1; a copy to main memory is a tensor of zeros that takes one value's memory.

    The result's shape of each operator is cached by argument shapes: torch infers many of them in Python, which would
    take longer than everything else in a step.
    """

    _results: ClassVar[dict[Any, Any]] = {}  # operator and shapes -> shape, strides, type and device of its result

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else None
        if not isinstance(tensor, Tensor) or not tensor.is_meta:
            return function(*args, **kwargs)
        if function is aten.add.Tensor and _is_sum_of_embedding_gradients():
            return tensor
        if function is aten._local_scalar_dense.default:
            return 1.0
        if function is aten._to_copy.default and torch.device(kwargs.get("device") or "meta").type == "cpu":
            return torch.zeros((), dtype=kwargs.get("dtype") or tensor.dtype).expand(tensor.shape)
        return self._known(function, args, kwargs) if _is_plain(function) else function(*args, **kwargs)

    def _known(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Result, from the cache if possible, of an operator that returns one new tensor or only changes its first."""
        key = (function, *map(_described, args), *((name, _described(value)) for name, value in kwargs.items()))
        found = self._results.get(key)
        if found is None:
            result = function(*args, **kwargs)
            self._results[key] = (result.shape, result.stride(), result.dtype, result.device)
            return result
        if function._schema.is_mutable:
            return args[0]
        shape, stride, dtype, device = found
        return torch.empty_strided(shape, stride, dtype=dtype, device=device)


@cache
def _is_plain(function: Any) -> bool:
    """Whether an aten operator returns exactly one tensor: a new one, or its first argument changed in place."""
    schema = function._schema
    one = function.namespace == "aten" and len(schema.returns) == 1 and str(schema.returns[0].type) == "Tensor"
    changed = [argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write]
    if changed:
        return one and changed == [schema.arguments[0].name]
    return one and all(argument.alias_info is None for argument in schema.arguments)


def _is_sum_of_embedding_gradients() -> bool:
    """Whether autograd is just adding the gradient of a tied embedding to that of the head.

    Autograd adds them in place, but under a TorchDispatchMode such as this one it allocates a third tensor instead.
    """
    node = torch._C._current_autograd_node()
    return node is not None and node.name() == "EmbeddingBackward0"


def _described(value: Any) -> Any:
    """A hashable key of those properties of an argument that determine the shape of the result."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, list | tuple):
        return tuple(map(_described, value))
    return type(value), value
