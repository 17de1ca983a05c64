"""Equality of two answers that needs a computer algebra system, bounded in time and memory, from any thread.

sympy and math-verify may run for hours on a strange expression, and their own time-outs count seconds of the clock in
the main thread. Here one helper process per Python process holds the libraries (comparison_process.py).

A verdict depends on the two texts alone: equal or not, or undecided where the libraries ran into a limit. The limits
are far above what any expression with a verdict was seen to need (2.5 seconds), on any machine and under any load.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from sdsbench.core.errors import Unavailable

Verdict = bool | None
"""True: equal; False: not equal; None: undecided, a limit was hit."""

Comparison = Literal[
    "latex_difference", "lora_sb", "lora_sb_no_antlr", "sympy_latex", "math_verify", "math_verify_marked"
]

CPU_SECONDS = 20.0
WALL_SECONDS = 900.0
"""A safety net for a helper that waits and does not compute; CPU time is what decides."""

LONGEST = 100_000
"""Characters of a text: more than a model writes. Far longer ones take a library to its limit, each for itself."""

_patience = 1.0


@contextlib.contextmanager
def patience(factor: float) -> Iterator[None]:
    """Limits `factor` times as large inside the block: for answers that were left undecided."""
    global _patience
    before, _patience = _patience, factor
    try:
        yield
    finally:
        _patience = before


def equal(comparison: Comparison, gold: str, predicted: str) -> Verdict:
    """Whether the comparison (comparisons.py says what each does) takes the two for the same.

    Texts with a double underscore are not equal to anything: sympy evaluates what it reads as Python, and no answer
    needs a name that reaches into Python itself. Texts longer than LONGEST are undecided. Raises Unavailable only if
    the libraries cannot be started.
    """
    if "__" in gold or "__" in predicted:
        return False
    if max(len(gold), len(predicted)) > LONGEST:
        return None
    request = json.dumps([comparison, gold, predicted, _patience * CPU_SECONDS, _patience * WALL_SECONDS])
    for _ in range(2):  # a helper that was ended from outside, for want of memory say, is replaced once
        helper = _helper_of_this_process()
        with contextlib.suppress(_Gone):
            return helper.ask(request)
        _forget(helper)
    return None


class _Gone(Exception):
    """The helper process ended before it answered."""


class _Helper:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdsbench.tasks.symbolic.comparison_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(os.environ),
            start_new_session=True,  # Ctrl-C is for the run; the helper ends when its input closes
        )
        assert self._process.stdin and self._process.stdout
        self._requests, self._replies = self._process.stdin, self._process.stdout
        if self._replies.readline().strip() != "ready":
            raise Unavailable("sympy and math-verify do not start: run `pip install 'math-verify>=0.9'` and try again")
        atexit.register(self.close)

    def ask(self, request: str) -> Verdict:
        with self._lock:
            try:
                self._requests.write(request + "\n")
                self._requests.flush()
                reply = self._replies.readline()
            except BrokenPipeError:
                reply = ""
        if not reply:
            raise _Gone
        return json.loads(reply)

    def close(self) -> None:
        if self.owner == os.getpid():
            with contextlib.suppress(BrokenPipeError):
                self._requests.close()
            self._process.wait(timeout=10)


def environment(current: Mapping[str, str]) -> dict[str, str]:
    """The helper's environment: nothing in it may change what a library answers.

    Python's and the libraries' own variables are left out (a limit on digits, optimisation, caches, number types), but
    not where Python finds its packages; the order of sets is fixed.
    """
    where = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE")
    kept = {
        name: value
        for name, value in current.items()
        if name in where or not name.startswith(("PYTHON", "SYMPY_", "MPMATH_"))
    }
    here = str(Path(__file__).parents[3])  # this very package, whatever the working directory holds
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (here, kept.get("PYTHONPATH"))))
    return kept | {"PYTHONHASHSEED": "0", "SYMPY_GROUND_TYPES": "python", "MPMATH_NOGMPY": "1"}


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
