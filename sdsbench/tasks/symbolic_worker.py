"""The process that runs sympy and math-verify for symbolic.py: a script that reads one JSON line a request.

Each request is answered by a forked child with a limit on its CPU time, which the kernel enforces even inside C code:
a hard expression ends its child and nothing else, and the verdict hardly depends on how busy the machine is.
"""

import json
import os
import select
import signal
import sys

CPU_SECONDS = 0.5
WALL_SECONDS = 0.8
MEMORY_BYTES = 2 << 30

# each function: (gold answer, predicted answer) -> equal


def sympy_equal(gold: str, predicted: str) -> bool:
    from latex2sympy2_extended import latex2sympy
    from sympy import simplify

    return bool(simplify(latex2sympy(gold) - latex2sympy(predicted)) == 0)


def math_verify_equal(gold: str, predicted: str) -> bool:
    from math_verify import parse, verify

    return bool(
        verify(parse(f"${gold}$", parsing_timeout=None), parse(predicted, parsing_timeout=None), timeout_seconds=None)
    )


FUNCTIONS = {"sympy": sympy_equal, "math_verify": math_verify_equal}


def answer(function: str, gold: str, predicted: str) -> bool:
    """The verdict of a child; False if it ran out of time or memory or raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        verdict = b"0"
        try:
            os.close(reading)
            limit_child()
            verdict = b"1" if FUNCTIONS[function](gold, predicted) else b"0"
        except BaseException:  # whatever a parser does with arbitrary text, the verdict is "not equal"
            pass
        finally:
            os.write(writing, verdict)
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], WALL_SECONDS)
    verdict = os.read(reading, 1) if ready else b""
    os.close(reading)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return verdict == b"1"


def limit_child() -> None:
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the default action ends the process
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def main() -> None:
    import logging

    logging.disable(logging.CRITICAL)  # math-verify warns that its own time-out is off
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not write into the replies
    for warm_up in FUNCTIONS.values():  # the imports and parser tables that every child inherits
        warm_up(r"\frac{1}{2}", r"$\sqrt{4}/4$")
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
