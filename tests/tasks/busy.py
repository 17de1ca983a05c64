"""Load on the machine, so that tests can check that results do not depend on it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

BUSY_PROCESSES = 12
UNTIL_ALONE = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
"""A program that computes until its parent has ended, so that it also ends if the test is killed."""


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Run twelve computing processes, each in its own session, because the kernel shares CPU time between sessions."""
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
