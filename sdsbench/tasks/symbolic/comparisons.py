"""Comparisons of two answers that need sympy or math-verify; comparison_process.py runs each call in a child process.

Each takes (gold answer, predicted answer or text) and returns whether the library considers them equal. An exception of
a library counts as "not equal", as in the published programs. MemoryError means that the child hit its limit; the
answer is then undecided.
"""

from __future__ import annotations

import contextlib
import math
import types
from collections.abc import Callable, Sequence
from typing import Any

Parser = Callable[[str], Any]

_REACHES_OUT = ("open", "exec", "eval", "compile", "input", "breakpoint", "__import__", "__build_class__")


def latex_difference(gold: str, predicted: str) -> bool:
    """Parse both with latex2sympy; equal if sympy simplifies their difference to zero."""
    from latex2sympy2_extended import latex2sympy
    from sympy import simplify

    return bool(simplify(latex2sympy(gold) - latex2sympy(predicted)) == 0)


def lora_sb(gold: str, predicted: str) -> bool:
    """The last step of LoRA-SB's grader (its grader.py) where antlr is installed: LaTeX, then Python notation."""
    from sympy.parsing.latex import parse_latex
    from sympy.parsing.sympy_parser import parse_expr

    return _zero_or_close(gold, predicted, [parse_latex, parse_expr])


def lora_sb_no_antlr(gold: str, predicted: str) -> bool:
    """The same program without antlr installed: sympy then cannot parse LaTeX."""
    from sympy.parsing.sympy_parser import parse_expr

    return _zero_or_close(gold, predicted, [parse_expr])


def _zero_or_close(gold: str, predicted: str, parsers: Sequence[Parser]) -> bool:
    """Equal if sympy finds their difference to be zero, or if both are numbers within 1e-3. Unparsable answers stay
    texts."""
    from sympy import N, simplify

    first, second = _parsed(predicted, parsers), _parsed(gold, parsers)
    with _not_equal_if_raised():
        if simplify(first - second) == 0:
            return True
    with _not_equal_if_raised():
        return math.isclose(N(first), N(second), rel_tol=1e-3)
    return False


def _parsed(text: str, parsers: Sequence[Parser]) -> Any:
    for parser in parsers:
        with _not_equal_if_raised():
            return parser(text)
    return text


@contextlib.contextmanager
def _not_equal_if_raised() -> Any:
    try:
        yield
    except MemoryError:
        raise
    except BaseException:  # noqa: S110 - parsers raise whatever comes on arbitrary text, SystemExit for "exit" included
        pass


def sympy_latex(gold: str, predicted: str) -> bool:
    """Parse both with sympy's LaTeX parser; equal if their difference is zero."""
    from sympy import simplify
    from sympy.parsing.latex import parse_latex

    return bool(simplify(parse_latex(predicted) - parse_latex(gold)) == 0)


def math_verify(gold: str, predicted: str) -> bool:
    """math-verify on the whole text, as lm-eval calls it: the gold answer stands in a box between dollars."""
    return _verified(f"$\\boxed{{{gold}}}$", predicted)


def math_verify_marked(gold: str, predicted: str) -> bool:
    """math-verify on two answers, both between dollars."""
    return _verified(f"${gold}$", f"${predicted}$")


def _verified(gold: str, predicted: str) -> bool:
    from math_verify import parse, verify

    sides = (parse(text, parsing_timeout=None) for text in (gold, predicted))
    return bool(verify(*sides, timeout_seconds=None))


_EVERYDAY = (
    "x+3", r"-\frac{3}{4}", r"2\sqrt{3}", "x^2+2x+1", "(x+1)(x-2)", r"\frac{\pi}{2}", r"45^\circ", "1.5", "a=3",
    r"\sin x",
)  # fmt: skip
"""Parsing these once at start-up makes later parsing about three times faster."""

COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    function.__name__: function
    for function in (latex_difference, lora_sb, lora_sb_no_antlr, sympy_latex, math_verify, math_verify_marked)
}


def prepare() -> None:
    """Import libraries and build parser tables before forking, and turn names that generated text must not call into
    plain symbols."""
    from sympy.parsing import sympy_parser

    # parse_expr evaluates its text with every built-in function in reach; those that reach out of the expression
    # become plain symbols
    harmless = {name: value for name, value in vars(sympy_parser.builtins).items() if name not in _REACHES_OUT}
    sympy_parser.builtins = types.SimpleNamespace(**harmless)
    for comparison in COMPARISONS.values():
        for text in _EVERYDAY:
            with _not_equal_if_raised():
                comparison(text, f"{text} + 1")
