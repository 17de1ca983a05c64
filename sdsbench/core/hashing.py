"""Canonical JSON, so that equal values have equal hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False, check_circular=False
)


def canonical_json(tree: Any) -> str:
    """JSON that is identical for equal values: sorted keys, no spaces, exact floats."""
    return _ENCODER.encode(tree)


def sha256_of(tree: Any) -> str:
    """sha256, in hexadecimal digits, of the canonical JSON of plain values."""
    return hashlib.sha256(canonical_json(tree).encode()).hexdigest()
