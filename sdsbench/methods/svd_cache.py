"""Leading singular triples of base weights, kept on disk: an SVD of a 7B model takes minutes, a read seconds.

A file's name is a hash of the weight's bytes, rank, algorithm and seed, so a changed weight never meets old factors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from sdsbench.core.cache import cache_folder
from sdsbench.core.lazy import torch
from sdsbench.methods.tensor_file import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

Triples = tuple["Tensor", "Tensor", "Tensor"]  # U_mr, S_r, V_nr
WORTH_CACHING = 2**20
"""Entries of a weight from which reading the factors is quicker than making them."""


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
    path = cache_folder() / "svd" / f"{key}.safetensors"
    if path.exists():
        found = load_file(path, device=str(weight_mn.device))
        return found["U"], found["S"], found["V"]
    u_mr, s_r, v_nr = compute()
    save_tensors(path, {"U": u_mr, "S": s_r, "V": v_nr})
    return u_mr, s_r, v_nr
