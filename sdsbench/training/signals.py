"""Signals that ask a run to save its state and stop. Training checks after every step, evaluation after every token."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

from sdsbench.core.errors import Interrupted

STATUS = {
    signal.SIGINT: "preempted",
    signal.SIGTERM: "preempted",
    signal.SIGUSR2: "preempted",
    signal.SIGUSR1: "timeout",
}
"""SLURM sends USR1 before the time limit (--signal=USR1@SECONDS) and TERM when it takes a node back."""
_NOBODY = (None, signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)


def acknowledge(number: int) -> None:
    """Print immediately, from inside a signal handler, that the signal was received."""
    again = "; again: now" if number == signal.SIGINT else ""
    with suppress(OSError):  # not print(): the signal may have interrupted one
        os.write(2, f"\n{signal.Signals(number).name}: stopping after this step{again}\n".encode())


class StopRequest:
    """Context manager that installs signal handlers (in the main thread only) and stores the signal received.

    On exit, when the state is saved, the signal is passed on to the previous handler (an outer StopRequest, submitit).
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STATUS}
        return self

    def __exit__(self, *_: object) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        outer = before.get(self.received or 0)
        if isinstance(around := getattr(outer, "__self__", None), StopRequest):
            around.received = self.received
        elif outer not in _NOBODY:
            signal.raise_signal(self.received or 0)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the step to end
        if self.received is None:
            acknowledge(number)
        self.received = number

    def raise_if_received(self, saved: str) -> None:
        """Raises Interrupted if a signal was received; `saved` tells the user what the next start will resume from."""
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise Interrupted(f"stopped by {name}; {saved}", STATUS[signal.Signals(self.received)])
