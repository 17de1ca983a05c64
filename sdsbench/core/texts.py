"""Values as users write them on the command line."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """A value in Hydra's override syntax: null, true, [q_proj,v_proj], 0.001."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    return str(value)
