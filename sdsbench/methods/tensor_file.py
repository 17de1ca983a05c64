"""Atomic writing of safetensors files: a reader never sees a partly written file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdsbench.core.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, from any device, to `path`; creates the folder if it is missing."""
    from safetensors.torch import save

    write_atomic(path, save(ready_to_save(tensors)))


def ready_to_save(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in main memory, contiguous and without shared storage, as safetensors requires.

    A method may share a factor between layers, or use parts of one large matrix in each.
    """
    ready: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in taken:
            plain = plain.clone()
        taken.add(plain.untyped_storage().data_ptr())
        ready[name] = plain
    return ready
