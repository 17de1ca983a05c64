"""A machine that is busy with other people's work."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

BUSY_PROCESSES = 12
UNTIL_ALONE = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends by itself where the test was killed, and could not end it."""


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Twelve processes that never pause, each in a session of its own: the kernel shares time by session."""
    busy = [
        subprocess.Popen([sys.executable, "-c", UNTIL_ALONE], start_new_session=True) for _ in range(BUSY_PROCESSES)
    ]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()
