"""A key-value cache of known length: each step writes its own column instead of copying all that came before.

As transformers' StaticCache it holds its memory from the start; unlike it, attention reads the columns in use alone,
and rows that have ended leave or make room for others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """One layer's keys and values (rows x heads x used columns x head size): views of buffers of `capacity` columns."""

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
        if end > self.capacity:  # a single column too many would be dropped without a word
            raise ValueError(f"{end} columns do not fit a cache reserved for {self.capacity}")
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self._use(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            columns = self.get_seq_length()
            self.buffers = [buffer[indices.to(buffer.device)] for buffer in self.buffers]
            self._use(columns)

    def put_last(self, rows: Tensor, other: ReservedLayer) -> None:
        """Put all columns of another layer into the last columns of these rows, one row of it each."""
        end = self.get_seq_length()
        for buffer, states in zip(self.buffers, (other.keys, other.values), strict=True):
            buffer[rows, :, end - states.shape[2] : end] = states

    def keep_last(self, columns: int) -> None:
        """Forget all but the last columns in use."""
        end = self.get_seq_length()
        for buffer in self.buffers:
            buffer[:, :, :columns] = buffer[:, :, end - columns : end].clone()
        self._use(columns)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.batch_select_indices(torch.arange(self.keys.shape[0]).repeat_interleave(repeats))

    def _use(self, columns: int) -> None:
        self.keys, self.values = (buffer[:, :, :columns] for buffer in self.buffers)


def reserved_cache(config: Any, capacity: int) -> DynamicCache:
    """The cache of a model with every layer that attends to all positions reserved for `capacity` of them.

    Layers with a sliding window stay transformers' own, which hold one window.
    """
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
