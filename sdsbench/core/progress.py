"""Progress that reads well with and without a terminal: a live bar, or a plain line now and then."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import time
from pathlib import Path
from typing import TextIO

import torch

from sdsbench.core.clock import clock
from sdsbench.core.console import reader_is_gone

PLAIN_SECONDS = 10.0
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory() -> tuple[int, str]:
    """(bytes, kind) of the peak since `forget_peak_memory`: CUDA's allocator, or resident memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated(), "cuda_allocated"
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        found = None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024, "rss"


def forget_peak_memory() -> None:
    """Start the peak anew, for the next run of a worker's process. Where Linux does not do so, the process's stays."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")  # proc(5): resets the peak resident set size


def say_now(text: str) -> None:
    """Print a line that also reaches a log file at once; a run goes on where nobody reads it any more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        reader_is_gone()


class Progress:
    """One line of state for a stage of `total` units; `after` seconds of later stages are part of the ETA."""

    def __init__(self, stage: str, total: int, done: int = 0, after: float = 0.0, out: TextIO | None = None) -> None:
        self.stage, self.total, self.done, self.after = stage, total, done, after
        self.out = out or sys.stderr
        self.live = self.out.isatty()
        self._first, self._started = done, time.monotonic()
        self._shown = self._started if self.live else self._started - PLAIN_SECONDS

    def advance(self, units: int = 1, detail: str = "") -> None:
        """Count finished units; shows a line when due and at the end."""
        self.done += units
        now = time.monotonic()
        last = self.done >= self.total
        if not last and now - self._shown < (0.1 if self.live else PLAIN_SECONDS):
            return
        self._shown = now
        elapsed = now - self._started
        left = elapsed / max(1, self.done - self._first) * (self.total - self.done) + self.after
        memory = f"{peak_memory()[0] / 2**30:.1f} GiB"
        text = f"{self.stage} {self.done}/{self.total}  {detail}  {memory}  {clock(elapsed)} + {clock(left)} left"
        if self.live:
            width = 20 * self.done // max(1, self.total)
            self.out.write(f"\r\x1b[K[{'#' * width}{'.' * (20 - width)}] {text}" + ("\n" if last else ""))
        else:
            self.out.write(text + "\n")
        self.out.flush()
