"""The process that compares answers for sdsbench.tasks.symbolic: reads one JSON line a request.

A request is [comparison, gold, predicted, CPU seconds, wall seconds]; the answer is true, false, or null: undecided.
A forked child handles each request. The kernel limits its CPU time even inside C code, so a hard expression kills only
that child. If a child ends without an answer, for any reason, the request is undecided.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys

from sdsbench.tasks.symbolic import comparisons, latex_grammar

MEMORY_BYTES = 4 << 30
STACK_FRAMES = 1000  # Python's default: how deep a text a parser can read must not depend on the caller


def answer(comparison: str, gold: str, predicted: str, cpu_seconds: float, wall_seconds: float) -> bool | None:
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError:  # the system has no free process or memory now
        os.close(reading)
        os.close(writing)
        return None
    if child == 0:
        _work(writing, comparison, gold, predicted, cpu_seconds)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], wall_seconds)
    verdict = os.read(reading, 1) if ready else b""
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {b"1": True, b"0": False}.get(verdict)


def _work(writing: int, comparison: str, gold: str, predicted: str, cpu_seconds: float) -> None:
    """Handle one request in the child process; exits and never returns."""
    try:
        limit_child(cpu_seconds)
        try:
            equal = comparisons.COMPARISONS[comparison](gold, predicted)
        except MemoryError:
            os._exit(1)
        except BaseException:  # parsers may raise anything on arbitrary text
            equal = False
        os.write(writing, b"1" if equal else b"0")
    finally:
        os._exit(0)


def limit_child(cpu_seconds: float) -> None:
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the default action ends the process
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # sympy evaluates generated text; it must not write files


def main() -> None:
    import logging

    logging.disable(logging.CRITICAL)  # math-verify warns that its own time-out is off
    sys.setrecursionlimit(STACK_FRAMES)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not write into the replies
    latex_grammar.install()
    comparisons.prepare()
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
