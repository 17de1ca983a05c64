"""How long a text may be: a model that learned an embedding for each position has none beyond the last."""

from __future__ import annotations

from typing import Any

from torch import nn

from sdsbench.core.errors import Unavailable

_EXTRA = 2  # rows that some tables (OPT's) have in front of the first position


def learned_positions(model: Any) -> int | None:
    """The number of positions of a decoder that looks them up (GPT-2); None where they are computed (rotary, ALiBi)."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None:
        return None
    words = model.get_input_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module is not words]
    return context if any(context <= table.num_embeddings <= context + _EXTRA for table in tables) else None


def check_length(model: Any, longest: int, what: str, advice: str) -> None:
    """Raises Unavailable where a text of so many tokens has more than the model has positions."""
    held = learned_positions(model)
    if held is not None and longest > held:
        raise Unavailable(f"{what} has {longest:,} tokens; accepted: at most {held:,}, the model's positions. {advice}")
