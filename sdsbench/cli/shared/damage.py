"""Reporting unreadable files on standard error, beside the result that leaves them out."""

from __future__ import annotations

import sys
from collections.abc import Mapping

MOST = 20


def report_damaged(damaged: Mapping[str, str]) -> None:
    """Print each distinct reason of `damaged` (file -> reason with its path), at most MOST lines."""
    reasons = list(dict.fromkeys(damaged.values()))
    for reason in reasons[:MOST]:
        print(f"left out: {reason}", file=sys.stderr)
    if len(reasons) > MOST:
        print(f"left out: {len(reasons) - MOST} more", file=sys.stderr)
