"""Progress display: a live line on a terminal, occasional plain lines elsewhere."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import time
from pathlib import Path

import torch
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Line
from rich.table import Column

from sdsbench.core.clock import clock
from sdsbench.core.console import cut, rich_console

PLAIN_SECONDS, LIVE_SECONDS = 10.0, 0.1
STAGE, BAR = 34, 4  # columns of a terminal: at most for the name of the stage, at least for the bar
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
    """Reset the peak before the next run of a worker's process. If Linux does not allow it, the whole process's peak is
    kept."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")  # proc(5): resets the peak resident set size


class Progress:
    """Shows the progress of a stage of `total` units; `after` (seconds of later stages) is added to the time left.

    On a terminal one line of its width is updated in place; elsewhere a line is printed at the start, every
    PLAIN_SECONDS, and at the end.
    """

    def __init__(self, stage: str, total: int, done: int = 0, after: float = 0.0) -> None:
        self.stage, self.total, self.done, self.after = stage, total, done, after
        self._first, self._started = done, time.monotonic()
        self._out, console = sys.stderr, rich_console(stderr=True)
        self.live = console.is_terminal and not console.is_dumb_terminal
        self._line = Line(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn("{task.fields[text]}", markup=False),
            console=console, auto_refresh=False, expand=True, disable=not self.live,
            redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip
        self._width = console.width
        self._task = self._line.add_task(cut(stage, STAGE), total=total, completed=done, text="")

    def __enter__(self) -> Progress:
        self._line.start()
        self._show("")
        return self

    def __exit__(self, *_: object) -> None:
        self._line.stop()

    def advance(self, units: int = 1, detail: str = "") -> None:
        """Count finished units; shows a line when due and at the end."""
        self.done += units
        due = time.monotonic() - self._shown >= (LIVE_SECONDS if self.live else PLAIN_SECONDS)
        if due or (units and self.done >= self.total):
            self._show(detail)

    def _show(self, detail: str) -> None:
        self._shown = time.monotonic()
        elapsed = self._shown - self._started
        made = self.done - self._first
        rest = self.total - self.done
        left = f", {clock(elapsed / made * rest + self.after)} left" if made and rest > 0 else ""
        memory = f"{peak_memory()[0] / 2**30:.1f} GiB"
        count, clocks = f"{self.done}/{self.total}", f"{memory}  {clock(elapsed)}{left}"
        if self.live:
            room = self._width - min(len(self.stage), STAGE) - BAR - len(count) - len(clocks) - 6  # spaces between them
            text = "  ".join(filter(None, (count, cut(detail, room), clocks)))
            self._line.update(self._task, completed=self.done, text=text)
            self._line.refresh()
        else:
            text = "  ".join(filter(None, (detail, clocks)))
            print(f"{self.stage} {count}  {text}", file=self._out, flush=True)
