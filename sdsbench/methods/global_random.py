"""Temporarily seed the global random generators that other libraries draw from, then restore them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*parts: object) -> int:
    """A 32-bit seed hashed from the parts (numpy accepts, and torch's CPU generator uses, only 32 bits)."""
    name = ":".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global generators of torch (CPU and `device`), numpy and Python start at `seed`.

    On exit each generator's state is restored, so draws inside the block do not affect code outside.
    """
    on_gpu = device.type == "cuda"
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if on_gpu else []):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
