"""Leading singular triples of base weights, kept on disk: an SVD of a 7B model takes minutes, a read seconds.

An entry's name is a hash of the weight's bytes, rank, algorithm and seed, so a changed weight never gets old factors. A
damaged file is computed again (core/disk_cache.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sdsbench.core.disk_cache import cached
from sdsbench.core.lazy import torch
from sdsbench.methods.tensor_file import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

Triples = tuple["Tensor", "Tensor", "Tensor"]  # U_mr, S_r, V_nr
WORTH_CACHING = 2**20
"""Number of weight entries above which reading the factors is faster than computing them."""


_FILE = "triples.safetensors"


def weight_hash(weight_mn: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{weight_mn.dtype}{tuple(weight_mn.shape)}".encode())
    digest.update(weight_mn.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cached_triples(weight_mn: Tensor, rank: int, algorithm: str, seed: int, compute: Callable[[], Triples]) -> Triples:
    """The triples from the cache, on the weight's device; made by `compute` and stored if absent.

    Small weights are computed each time.
    """
    if weight_mn.numel() < WORTH_CACHING:
        return compute()
    from safetensors.torch import load_file

    key = hashlib.sha256(f"{weight_hash(weight_mn)} {rank} {algorithm} {seed}".encode()).hexdigest()
    made: list[Triples] = []

    def build(folder: Path) -> None:
        made.append(compute())
        save_tensors(folder / _FILE, dict(zip("USV", made[0], strict=True)))

    folder = cached("svd", key, key, build)
    if made:
        return made[0]
    found = load_file(folder / _FILE, device=str(weight_mn.device))
    return found["U"], found["S"], found["V"]
