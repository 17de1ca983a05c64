"""Largest text length: a model with learned position embeddings cannot process positions beyond its table."""

from __future__ import annotations

from typing import Any

from torch import nn

from sdsbench.core.errors import Unavailable

_EXTRA = 2  # extra rows before the first position in some tables (OPT)


def learned_positions(model: Any) -> int | None:
    """Number of positions of a decoder with learned position embeddings (GPT-2); None if they are computed (rotary,
    ALiBi)."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None:
        return None
    words = model.get_input_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module is not words]
    return context if any(context <= table.num_embeddings <= context + _EXTRA for table in tables) else None


def check_length(model: Any, longest: int, what: str, advice: str) -> None:
    """Raises Unavailable if a text of `longest` tokens exceeds the model's positions."""
    held = learned_positions(model)
    if held is not None and longest > held:
        raise Unavailable(f"{what} has {longest:,} tokens; accepted: at most {held:,}, the model's positions. {advice}")
