"""The set of methods in a column not significantly different from the best; bold if the set is a single method.

The best method is selected by the same scores that are then tested, and even nine equal methods have a best one. So
each p-value is multiplied by the number of all method pairs in all columns of the table (Bonferroni), although only
pairs with the best are tested. With probability 95 % no two equal methods of a table are then declared different.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.contrast import Contrast, contrast
from sdsbench.results.tables.definition import Column

ALPHA = 0.05


def mark(columns: Sequence[Column], cells: dict[tuple[str, str], TableCell]) -> dict[tuple[str, str], TableCell]:
    """The cells with their marks: `among_best` for the set, `best` if the set is one method."""
    contests = {
        column.name: contest
        for column in columns
        if (contest := _contest(column, [cell for cell in cells.values() if cell.column == column.name]))
    }
    count = sum(pairs(others) for _, others in contests.values())
    marked = dict(cells)
    for best, others in contests.values():
        members = []
        for cell, found in others:
            p_value = found.comparison.p_value
            adjusted = None if math.isnan(p_value) else min(1.0, count * p_value)
            inside = adjusted is None or adjusted >= ALPHA
            members += [cell.row] if inside else []
            marked[cell.row, cell.column] = replace(
                cell, mark="among_best" if inside else "", p_value=adjusted, test=found.comparison.test
            )
        alone = not members and not best.unlearned
        marked[best.row, best.column] = replace(best, mark="best" if alone else "among_best" if members else "")
    return marked


def pairs(others: Sequence[tuple[TableCell, Contrast]]) -> int:
    """Number of pairs among the best cell and the cells that it was tested against."""
    return math.comb(1 + sum(not math.isnan(found.comparison.p_value) for _, found in others), 2)


def family(columns: Sequence[Column], cells: Mapping[tuple[str, str], TableCell]) -> int:
    """The number of pairs by which a table's p-values are multiplied."""
    tested = (sum(c.column == column.name and c.p_value is not None for c in cells.values()) for column in columns)
    return sum(math.comb(1 + count, 2) for count in tested if count)


def comparable(column: Column, cells: Sequence[TableCell]) -> list[TableCell]:
    """The cells of a column that may be compared: those with a value and the majority's setting."""
    if not column.better:
        return []
    return [cell for cell in cells if cell.status == "value" and cell.ours is not None and not cell.apart]


def _contest(column: Column, cells: Sequence[TableCell]) -> tuple[TableCell, list[tuple[TableCell, Contrast]]] | None:
    """(best cell, its test against each other cell); None if no test is possible."""
    sign = 1.0 if column.better == "higher" else -1.0
    ranked = sorted(comparable(column, cells), key=lambda cell: -sign * cell.ours.mean if cell.ours else 0.0)
    if len(ranked) < 2:
        return None
    others = [(cell, contrast(column, ranked[0], cell)) for cell in ranked[1:]]
    if all(math.isnan(found.comparison.p_value) for _, found in others):
        return None
    return ranked[0], others
