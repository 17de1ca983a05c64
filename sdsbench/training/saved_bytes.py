"""Exact counts of a step's memory: bytes saved for backward, and peak bytes of live tensors, without an allocator.

Both count storages, not tensors: views of one storage count once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class SavedBytes:
    """Counts the bytes that autograd saves for backward, without the `existing` tensors (weights, adapters, batch)."""

    def __init__(self, existing: Iterable[Tensor]) -> None:
        self._existing = {tensor.untyped_storage().data_ptr() for tensor in existing}
        self._saved: dict[int, tuple[int, Any]] = {}  # address -> (bytes, storage); held so no address is used twice

    @property
    def total(self) -> int:
        return sum(size for size, _ in self._saved.values())

    @contextmanager
    def counting(self) -> Iterator[SavedBytes]:
        """While active, counts what forward passes save; do not run backward before it ends."""

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._existing:
                self._saved[storage.data_ptr()] = (storage.nbytes(), storage)
            return tensor.detach()  # else a node that saves its own output would never be freed

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield self


def saved_bytes(model: Any, run_forward: Any) -> int:
    """Bytes saved for backward by `run_forward()`, which returns the loss, without the model's own tensors."""
    counter = SavedBytes([*model.parameters(), *model.buffers()])
    with counter.counting():
        loss = run_forward()
    del loss
    return counter.total


class PeakBytes(TorchDispatchMode):
    """Peak bytes of live storages allocated while the mode is active; earlier tensors such as weights do not count.

    With `device`, a device type such as "meta", only storages on such devices count.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self._device = device
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and self._device in (None, leaf.device.type):
                self._add(leaf, (args, kwargs))
        return result

    def _add(self, tensor: Tensor, arguments: Any) -> None:
        """Count the tensor's storage unless it is already counted or belongs to an argument of the operator."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in _storages(arguments):
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storages(arguments: Any) -> set[int]:
    return {leaf.untyped_storage()._cdata for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)}
