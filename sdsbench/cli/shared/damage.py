"""What could not be read, told once on standard error beside a result that it is missing from."""

from __future__ import annotations

import sys
from collections.abc import Mapping

MOST = 20


def report_damaged(damaged: Mapping[str, str]) -> None:
    """A line a file, with path and reason; of many the first ones."""
    reasons = list(dict.fromkeys(damaged.values()))
    for reason in reasons[:MOST]:
        print(f"left out: {reason}", file=sys.stderr)
    if len(reasons) > MOST:
        print(f"left out: {len(reasons) - MOST} more", file=sys.stderr)
