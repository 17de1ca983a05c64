"""Symbolic equality of two answers, bounded in time and memory, from any thread.

sympy and math-verify may run for hours on a strange expression, and their own time-outs need the main thread. Here one
helper process per Python process holds the libraries; see symbolic_worker.py for the limits.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

from sdsbench.core.errors import Unavailable

LONGEST_ANSWER = 400
"""Characters; no gold answer of MATH has half as many, and a longer text is no answer."""


def equal(function: Literal["sympy", "math_verify"], gold: str, predicted: str) -> bool:
    """Whether the library takes the two for the same; False if it fails, or needs over half a second of CPU time.

    gold is LaTeX without dollar signs; predicted likewise for sympy, and text around dollars for math_verify.
    Raises Unavailable only if the libraries themselves cannot be started.
    """
    if max(len(gold), len(predicted)) > LONGEST_ANSWER:
        return False
    return _helper_of_this_process().ask(function, gold, predicted)


class _Helper:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        worker = Path(__file__).with_name("symbolic_worker.py")
        self._process = subprocess.Popen(  # -P: this folder has a math.py, which must not hide the standard one
            [sys.executable, "-P", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run; the helper ends when its input closes
        )
        assert self._process.stdin and self._process.stdout
        self._requests, self._replies = self._process.stdin, self._process.stdout
        if self._replies.readline().strip() != "ready":
            raise Unavailable("sympy and math-verify do not start: run `pip install 'math-verify>=0.9'` and try again")
        atexit.register(self.close)

    def ask(self, *request: str) -> bool:
        with self._lock:
            try:
                self._requests.write(json.dumps(request) + "\n")
                self._requests.flush()
                reply = self._replies.readline()
            except BrokenPipeError:
                reply = ""
        if not reply:  # the helper was ended from outside, for want of memory say: the next question starts another
            _forget(self)
        return reply.strip() == "true"

    def close(self) -> None:
        if self.owner == os.getpid():
            with contextlib.suppress(BrokenPipeError):
                self._requests.close()
            self._process.wait(timeout=10)


_helper: _Helper | None = None
_helper_lock = threading.Lock()


def _forget(helper: _Helper) -> None:
    global _helper
    with _helper_lock:
        if _helper is helper:
            _helper = None


def _helper_of_this_process() -> _Helper:
    """One helper per process: a fork must not share its parent's pipe."""
    global _helper
    with _helper_lock:
        if _helper is None or _helper.owner != os.getpid():
            _helper = _Helper()
        return _helper
