"""Keep the input of each block only, and compute the block again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any


def enable(model: Any) -> None:
    """Switch it on for training. The second forward pass uses the attention that the first one used (attention.py)."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _attention(model.config, model.config._attn_implementation)

    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


@contextmanager
def _attention(config: Any, name: str) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
