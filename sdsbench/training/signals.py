"""Signals that ask a run to save its state and stop: the loop looks after every step."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from sdsbench.core.errors import Interrupted

STATUS = {
    signal.SIGINT: "preempted",
    signal.SIGTERM: "preempted",
    signal.SIGUSR2: "preempted",
    signal.SIGUSR1: "timeout",
}
"""SLURM sends USR1 before the time limit (--signal=USR1@SECONDS) and TERM when it takes a node back."""


class StopRequest:
    """Installs handlers while in use (main thread only) and remembers the first signal that came."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STATUS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the step to end
        self.received = number

    def raise_if_received(self, saved: str) -> None:
        """Raises Interrupted once a signal came; `saved` says what a later start finds."""
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise Interrupted(f"stopped by {name}; {saved}", STATUS[signal.Signals(self.received)])
