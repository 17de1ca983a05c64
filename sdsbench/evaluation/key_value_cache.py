"""A key-value cache of fixed capacity: each decoding step writes one column instead of copying the whole cache.

Like transformers' StaticCache it allocates its memory once. Unlike it, attention reads only the columns in use, and
finished rows can be removed or replaced. For static steps (static_step.py) the index of the newest column is a tensor
on the device, and attention reads the same number of columns for many steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class ReservedLayer(DynamicLayer):
    """Keys and values of one layer, rows x heads x used columns x head size: views of buffers of `capacity` columns."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.buffers = [
            states.new_empty(*states.shape[:2], self.capacity, states.shape[3]) for states in (key_states, value_states)
        ]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.capacity:  # without this check, one excess column would be dropped silently
            raise ValueError(f"{end} columns do not fit a cache reserved for {self.capacity}")
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.use(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            columns = self.get_seq_length()
            self.buffers = [buffer[indices.to(buffer.device)] for buffer in self.buffers]
            self.use(columns)

    def put_last(self, rows: Tensor, other: ReservedLayer, columns: int) -> None:
        """Copy the last `columns` of `other`, which has a row for each of `rows`, to the last columns of these rows."""
        end = self.get_seq_length()
        for buffer, states in zip(self.buffers, (other.keys, other.values), strict=True):
            buffer[rows, :, end - columns : end] = states[:, :, -columns:]

    def keep_ends(self, first: int, last: int) -> None:
        """Drop the columns in use between the `first` and the `last` ones."""
        end = self.get_seq_length()
        for buffer in self.buffers:
            buffer[:, :, first : first + last] = buffer[:, :, end - last : end].clone()
        self.use(first + last)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.batch_select_indices(torch.arange(self.keys.shape[0]).repeat_interleave(repeats))

    def use(self, columns: int) -> None:
        """Set the number of columns in use, counted from the first."""
        self.keys, self.values = (buffer[:, :, :columns] for buffer in self.buffers)


class StaticLayer(DynamicLayer):
    """The buffers of a ReservedLayer in a static step, which writes the column `newest` (tensor of length 1).

    Attention reads the first `columns` columns; the caller masks those not in use. Their values must still be finite,
    since 0 * nan is nan.
    """

    def __init__(self, reserved: ReservedLayer, newest: Tensor) -> None:
        super().__init__()
        self.buffers, self.newest, self.columns = reserved.buffers, newest, 0
        self.is_initialized = True
        for buffer in self.buffers:
            buffer[:, :, reserved.get_seq_length() :] = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = self.buffers
        keys.index_copy_(2, self.newest, key_states)
        values.index_copy_(2, self.newest, value_states)
        return keys[:, :, : self.columns], values[:, :, : self.columns]

    def get_seq_length(self) -> int:
        return self.columns - 1


def static_cache(reserved: Cache, newest: Tensor) -> Cache:
    """A cache for static steps that shares the memory of `reserved`, whose layers are already filled."""
    return Cache(layers=[StaticLayer(layer, newest) for layer in reserved.layers])


def reserved_cache(config: Any, capacity: int) -> DynamicCache:
    """A model's cache with room for `capacity` positions in every layer that attends to all of them.

    Layers with a shorter sliding window keep transformers' own cache layer, which stores one window.
    """
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(capacity) if _attends_to_all(layer, capacity) else layer for layer in cache.layers]
    return cache


def reserves_all(cache: Cache) -> bool:
    """Whether every layer is a ReservedLayer: layers with a short window or a state of another kind are not."""
    return all(isinstance(layer, ReservedLayer) for layer in cache.layers)


def _attends_to_all(layer: Any, columns: int) -> bool:
    """Whether a layer attends to all of `columns` columns."""
    windowed = type(layer) is DynamicSlidingWindowLayer
    return type(layer) is DynamicLayer or (windowed and layer.sliding_window >= columns)
