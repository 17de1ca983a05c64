"""Standard output that somebody may stop reading."""

from __future__ import annotations

import os
import sys


def reader_is_gone() -> None:
    """Send the rest of standard output nowhere, after BrokenPipeError: `sdsbench ... | head -1` ends in peace."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
