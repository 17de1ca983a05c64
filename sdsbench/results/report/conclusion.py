"""A board's conclusion in a sentence: methods better, worse, indistinguishable from the reference, or not tested."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdsbench.core.grouped import grouped
from sdsbench.core.texts import listed
from sdsbench.results.report.boards import Board
from sdsbench.results.tables.ranking import ALPHA
from sdsbench.results.tables.reference_comparison import Difference

NAMED = 3
"""Up to this number, methods are named; more are only counted."""


def conclusion(board: Board) -> str:
    """The conclusion of one task. Differences in points (of 100) with 95 % intervals; p-values are Holm-adjusted."""
    tested = [d for d in board.differences if not math.isnan(d.adjusted)]
    apart = [d for d in tested if d.adjusted < ALPHA]
    together = [d for d in tested if d.adjusted >= ALPHA]
    parts = []
    if together:
        alone = [d for d in together if d.contrast and d.contrast.comparison.low * d.contrast.comparison.high > 0]
        words = "intervals of {} leave" if len(alone) > 1 else "interval of {} leaves"
        but = f" (taken alone, the {words.format(listed([d.row.title for d in alone]))} out 0)" if alone else ""
        beside = f"{_reference(board, together)} at {_seeds(together)}"
        parts.append(f"{_counted(together)} cannot be told from {beside}{but}")
    parts += [f"{d.row.title} is {_by(d)}" for d in sorted(apart, key=_difference)]
    if not tested:
        parts.append(_without_tests(board))
    if untested := [d for d in board.differences if math.isnan(d.adjusted)]:
        parts.append(f"not tested: {'; '.join(_reasons(untested))}")
    return "; ".join(parts) + "."


def _without_tests(board: Board) -> str:
    if board.differences:
        return f"No method could be tested against {board.reference}"
    if len(board.valued) == 1:
        return f"{board.valued[0][0].title} alone has a score"
    if not board.valued:
        return "No method has a score"
    members = [row.title for row, cell in board.valued if cell.mark]
    if members:
        verb = "is the best" if len(members) == 1 else "cannot be told from the best"
        return f"There is no run of {board.reference} to compare with; {listed(members)} {verb}"
    return f"There is no run of {board.reference} to compare with, and nothing is tested among the others"


def _counted(found: Sequence[Difference]) -> str:
    if len(found) <= NAMED:
        return listed([d.row.title for d in found])
    return f"{len(found)} methods"


def _reference(board: Board, found: Sequence[Difference]) -> str:
    titles = {d.reference.title for d in found if d.reference}
    return titles.pop() if len(titles) == 1 else f"{board.reference} at equal rank"


def _seeds(found: Sequence[Difference]) -> str:
    counts = sorted({d.contrast.comparison.seeds for d in found if d.contrast})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _difference(d: Difference) -> float:
    assert d.contrast is not None
    return d.contrast.comparison.difference


def _by(d: Difference) -> str:
    assert d.contrast is not None
    c = d.contrast.comparison
    word = "better" if (c.difference > 0) == (d.column.better == "higher") else "worse"
    low, high = sorted((abs(c.low), abs(c.high))) if c.low * c.high > 0 else (c.low, c.high)
    digits = d.column.digits
    return f"{word} by {abs(c.difference):{digits}} [{low:{digits}}, {high:{digits}}]"


def _reasons(found: Sequence[Difference]) -> list[str]:
    by_reason = grouped(found, lambda d: d.why or (d.contrast.untested if d.contrast else ""))
    return [f"{listed([d.row.title for d in those])} ({reason})" for reason, those in by_reason.items()]
