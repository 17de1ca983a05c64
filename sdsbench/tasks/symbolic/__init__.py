"""Compare two answers with a computer algebra system, with limits on time and memory; callable from any thread.

sympy and math-verify may run for hours on unusual expressions, and their own time-outs measure wall-clock time and work
only in the main thread. So each Python process starts one helper process that holds the libraries
(comparison_process.py).

A verdict depends on the two texts alone: equal, not equal, or undecided if a library hit a limit. The limits are far
above the longest time that a decided expression needed (2.5 seconds), so speed and load of the machine do not matter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
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
"""Wall-clock limit, only for a helper that hangs without computing; normally the limit on CPU time applies."""

LONGEST = 100_000
"""Characters of a text, more than a model writes. Every far longer text would take a library up to its limit."""

_patience = 1.0


@contextlib.contextmanager
def patience(factor: float) -> Iterator[None]:
    """Multiply the limits by `factor` inside the block, to grade undecided answers again."""
    global _patience
    before, _patience = _patience, factor
    try:
        yield
    finally:
        _patience = before


def equal(comparison: Comparison, gold: str, predicted: str) -> Verdict:
    """Whether the named comparison (see comparisons.py) considers the two answers equal; None if undecided.

    Texts with a double underscore are not equal to anything: sympy evaluates what it reads as Python, and no answer
    needs a name that reaches into Python itself. Texts longer than LONGEST are undecided. Raises Unavailable only if
    the libraries cannot be started.
    """
    if "__" in gold or "__" in predicted:
        return False
    if max(len(gold), len(predicted)) > LONGEST:
        return None
    request = json.dumps([comparison, gold, predicted, _patience * CPU_SECONDS, _patience * WALL_SECONDS])
    for _ in range(2):  # if the helper was killed (out of memory, for example), start a new one once
        helper = _helper_of_this_process()
        try:
            return helper.ask(request)
        except _Gone:
            _forget(helper)
        except BaseException:
            _forget(helper)
            raise
    return None


class _Gone(Exception):
    """The helper process ended before it answered."""


class _Helper:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._interrupted = False
        # Imported for its name alone: the hash of a run's code follows import statements. At the top of this file, the
        # import would also run in the helper, which then holds the module twice.
        from sdsbench.tasks.symbolic import comparison_process

        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", comparison_process.__name__],
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
        """The helper's reply. Raises _Gone if it ended, or if an earlier question was interrupted."""
        with self._lock:
            if self._interrupted:
                raise _Gone
            try:
                self._requests.write(request + "\n")
                self._requests.flush()
                reply = self._replies.readline()
            except BrokenPipeError:
                reply = ""
            except BaseException:  # Ctrl-C, say: the reply that nobody read would answer the next question
                self._interrupted = True
                os.killpg(self._process.pid, signal.SIGKILL)  # and the child that works on the question
                raise
        if not reply:
            raise _Gone
        return json.loads(reply)

    def close(self) -> None:
        if self.owner == os.getpid():
            with contextlib.suppress(BrokenPipeError):
                self._requests.close()
            self._process.wait(timeout=10)


def environment(current: Mapping[str, str]) -> dict[str, str]:
    """The helper's environment variables, without those that could change a library's answer.

    Variables of Python and the libraries (limit on digits, optimisation, caches, number types) are removed, except
    those that locate packages. PYTHONHASHSEED is set, so that sets are iterated in a fixed order.
    """
    where = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE")
    kept = {
        name: value
        for name, value in current.items()
        if name in where or not name.startswith(("PYTHON", "SYMPY_", "MPMATH_"))
    }
    here = str(Path(__file__).parents[3])  # import this package, not a copy in the working directory
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
    """The helper of this process; a forked child starts its own, since it must not share its parent's pipe."""
    global _helper
    with _helper_lock:
        if _helper is None or _helper.owner != os.getpid():
            _helper = _Helper()
        return _helper
