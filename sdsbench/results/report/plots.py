"""The report's figures, one function each: data -> matplotlib Figure, or None if there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sdsbench.core.texts import span
from sdsbench.results import escape
from sdsbench.results.figure_style import drawing
from sdsbench.results.report.boards import Board
from sdsbench.results.report.curves import curves
from sdsbench.results.tables import run_values
from sdsbench.results.tables.cells import SCALE, TableCell
from sdsbench.results.tables.definition import Column, Row

LOSS_POINTS = 200  # maximum per line
WIDE = 8  # the cost axis is logarithmic if costs differ by more than this factor
BAR = {"linewidth": 1.6, "capsize": 2.5}
Span = tuple[float, float, float]  # value, low, high


def forest(board: Board) -> Figure | None:
    """Forest plot: each method's difference to the reference with its 95 % interval; hollow if it was not tested."""
    shown = [(d, d.contrast.comparison) for d in board.differences if d.contrast is not None]
    if not shown:
        return None
    shown.sort(key=lambda pair: pair[1].difference)
    sizes = [abs(c.difference) for _, c in shown]
    halves = [(c.high - c.low) / 2 for _, c in shown if not math.isnan(c.low)]
    least = 1.0 if board.column.format == "score" else 1e-6
    reach = max(1.2 * max(sizes), 2.5 * float(np.median(halves)) if halves else 0.0, least)
    with drawing():
        figure = Figure(figsize=(6.4, 0.9 + 0.3 * len(shown)))
        axes = figure.subplots()
        axes.axvline(0, color="#444444", linewidth=1)
        axes.set_xlim(-reach, reach)
        for height, (difference, c) in enumerate(shown):
            style = board.style(difference.row)
            untested = math.isnan(difference.adjusted)
            face = "white" if untested else style["markerfacecolor"]
            ends = (c.difference, *((c.low, c.high) if not math.isnan(c.low) else (c.difference,) * 2))
            _bar(axes, ends, height, style["color"], horizontal=True)
            axes.plot([c.difference], [height], **{**style, "linestyle": "", "markerfacecolor": face})
            digits = board.column.digits
            text = "not tested" if untested else f"{c.difference:+{digits}} [{c.low:{digits}}, {c.high:{digits}}]"
            axes.annotate(text, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        _names(axes, [difference.row for difference, _ in shown])
        axes.set_xlabel(escape.figure(f"{metric(board)}: difference to {board.reference}, 95 % interval"))
    return figure


def seeds(board: Board, link: Callable[[str], str]) -> Figure | None:
    """One point per seed, linked to its run's page, with mean and 95 % interval."""
    if not board.valued:
        return None
    with drawing():
        figure = Figure(figsize=(5.6, 0.9 + 0.3 * len(board.valued)))
        axes = figure.subplots()
        # With two seeds an interval can exceed the whole scale, so the axis limits fit the points, not the intervals.
        axes.set_xlim(*_room([number for _, cell in board.valued for number in cell.by_seed.values()]))
        for height, (row, cell) in enumerate(reversed(board.valued)):
            style = board.style(row)
            by_id = {run.id: cell.by_seed[run.record.seed] for run in cell.runs if run.record.seed in cell.by_seed}
            spread = np.linspace(0.16, 0.3, len(by_id)) if len(by_id) > 1 else [0.2]
            points = axes.scatter(list(by_id.values()), height + np.array(spread), s=22, color=style["color"],
                                  marker=style["marker"], alpha=0.75, linewidths=0)  # fmt: skip
            points.set_urls([link(run_id) for run_id in by_id])
            _bar(axes, _interval(cell), height, style["color"], horizontal=True)
            axes.plot(
                [_interval(cell)[0]], [height], marker="|", markersize=10, color=style["color"], markeredgewidth=2
            )
        _names(axes, [row for row, _ in reversed(board.valued)])
        axes.set_xlabel(escape.figure(f"{metric(board)}; points: seeds, line: mean and 95 % interval"))
    return figure


@dataclass(frozen=True)
class _Point:
    row: Row
    x: Span
    y: Span


def pareto(board: Board, cost: str, label: str) -> Figure | None:
    """Mean score with its interval against one cost (a column of the board); Pareto-optimal methods are ringed.

    Methods without a cost in the table have no point. None if the cost is equal for all methods, or if it was measured
    on different machines, which would compare machines instead of methods.
    """
    points, machines = [], set()
    for row, cell in board.valued:
        costs = board.built.cells.get((row.name, cost))
        if costs is not None and costs.ours is not None and costs.ours.mean > 0:
            each = list(costs.by_seed.values()) or [costs.ours.mean]  # counts are the same for every seed
            points.append(_Point(row, (costs.ours.mean, min(each), max(each)), _interval(cell)))
            machines |= {(p.device, p.threads) for run in costs.runs if (p := run.record.provenance)}
    timed = any(run_values.is_cost(column.measure) for column in board.built.table.columns if column.name == cost)
    if len({point.x[0] for point in points}) < 2 or (timed and len(machines) > 1):
        return None
    with drawing():
        figure = Figure(figsize=(4.6, 3.4))
        axes = figure.subplots()
        means = [point.x[0] for point in points]
        axes.set_xscale("log" if max(means) > WIDE * min(means) else "linear")
        _scatter(axes, points, (board, None))
        axes.set_xlabel(label)
    return figure


def two_scores(first: Board, second: Board) -> Figure | None:
    """Two scores of the same runs against each other with both intervals, such as the task's and a retention score.

    A line joins the Pareto-optimal methods; a dashed line shows the score before training, if it was evaluated.
    None if fewer than two rows have both scores.
    """
    others = {row.name: cell for row, cell in second.valued}
    points = [
        _Point(row, _interval(cell), _interval(others[row.name]))
        for row, cell in first.valued
        if row.name in others and {run.id for run in cell.runs} == {run.id for run in others[row.name].runs}
    ]
    if len(points) < 2:
        return None
    with drawing():
        figure = Figure(figsize=(4.6, 3.4))
        axes = figure.subplots()
        _scatter(axes, points, (second, first))
        for board, line in ((first, axes.axvline), (second, axes.axhline)):
            if (before := _untrained(board)) is not None:
                line(before, color="#777777", linestyle="--", linewidth=1)
    return figure


def learning_rates(board: Board) -> Figure | None:
    """Score against learning rate: one line per method and variant, one point per seed, the chosen rate ringed.

    The axis label states the number of tuning runs; the legend marks chosen rates at an end of the grid, beyond which a
    better one may lie.
    """
    found = curves(board.column, board.tried)
    if not found:
        return None
    with drawing():
        figure = Figure(figsize=(5.6, 3.6))
        axes = figure.subplots()
        axes.set_xscale("log")
        rows = {row.title: row for row in board.rows}
        for curve in found:
            row = rows.get(curve.title)  # None if each rate has its own row
            style = board.style(row) if row else board.palette.style(curve.method, curve.variant)
            rates = list(curve.scores)
            means = [float(np.mean(values)) for values in curve.scores.values()]
            chosen = curve.tuning.chosen if curve.tuning else None
            title = curve.title if curve.tuning is None or curve.tuning.interior else f"{curve.title} (end of its grid)"
            axes.plot(rates, means, label=escape.figure(title), markersize=5, **style)
            dots = [(rate, value) for rate, values in curve.scores.items() for value in values if len(values) > 1]
            axes.scatter([x for x, _ in dots], [y for _, y in dots], s=9, color=style["color"], alpha=0.5, linewidths=0)
            if chosen in curve.scores:
                axes.scatter([chosen], [means[rates.index(chosen)]], s=110, facecolors="none",
                             edgecolors=style["color"], linewidths=1.2)  # fmt: skip
        shown = sorted({rate for curve in found for rate in curve.scores})
        turned = 30 if len(shown) > 6 else 0
        axes.set_xticks(shown, [f"{rate:g}" for rate in shown], rotation=turned)
        axes.minorticks_off()
        held_back = "\non rows held back from training" if any(curve.validation for curve in found) else ""
        budgets = [curve.tuning.budget for curve in found if curve.tuning]
        axes.set_xlabel(
            f"learning rate (ringed: chosen, {span(budgets)} runs a method)" if budgets else "learning rate"
        )
        axes.set_ylabel(escape.figure(metric(board)) + held_back)
        _legend(axes, 2, below=0.31 if turned else 0.18)
    return figure


def losses(board: Board) -> Figure | None:
    """Training loss against step: mean over seeds, each a moving average."""
    lines = []
    for row, cell in board.valued:
        found = [curve for run in cell.runs if len(curve := [line["loss"] for line in run.steps("train")]) > 1]
        if found:
            length = min(map(len, found))
            lines.append((row, np.mean([curve[:length] for curve in found], axis=0)))
    if not lines:
        return None
    with drawing():
        figure = Figure(figsize=(5.6, 3.6))
        axes = figure.subplots()
        for row, curve in lines:
            window = max(1, len(curve) // 20)
            smooth = np.convolve(curve, np.ones(window) / window, mode="valid")
            steps = np.arange(window, len(curve) + 1)
            kept = slice(None, None, max(1, len(smooth) // LOSS_POINTS))
            marks: dict[str, Any] = {"markersize": 4, "markevery": max(1, len(smooth[kept]) // 6)}
            axes.plot(
                steps[kept], smooth[kept], label=escape.figure(row.title), linewidth=1.3, **board.style(row), **marks
            )
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("training loss (moving average)")
        _legend(axes, 2)
    return figure


def metric(board: Board) -> str:
    """Axis label of a board's scores: `GSM8K: flexible x 100`."""
    column: Column = board.column
    name = f"{column.title}: {column.scorer}" if column.scorer else column.title
    return f"{name} × 100" if SCALE.get(column.format) == SCALE["score"] else name


def _scatter(axes: Any, points: Sequence[_Point], boards: tuple[Board, Board | None]) -> None:
    """Scatter plot with intervals, Pareto-optimal points ringed; y is a score, x another score or (None) a cost."""
    upward, across = boards
    axes.set_ylim(*_room([point.y[0] for point in points]))
    if across:
        axes.set_xlim(*_room([point.x[0] for point in points]))
    best = _unbeaten(points, _sign(upward), _sign(across) if across else -1)
    if across and len(best) > 1:
        best.sort(key=lambda point: point.x[0])
        axes.plot([p.x[0] for p in best], [p.y[0] for p in best], color="#777777", linewidth=0.8, zorder=1)
    for point in points:
        style = (across or upward).style(point.row)
        (x, low, high), y = point.x, point.y[0]
        _bar(axes, point.y, x, style["color"], horizontal=False)
        if across:
            _bar(axes, point.x, y, style["color"], horizontal=True)
        else:
            axes.errorbar([x], [y], xerr=[[x - low], [high - x]], color=style["color"], linestyle="", **BAR)
        if point in best:
            axes.scatter([x], [y], s=150, facecolors="none", edgecolors="#444444", linewidths=1)
        axes.plot([x], [y], label=escape.figure(point.row.title), **{**style, "linestyle": "", "markersize": 6})
    axes.set_ylabel(escape.figure(metric(upward)))
    if across:
        axes.set_xlabel(escape.figure(metric(across)))
    axes.margins(x=0.12)
    _legend(axes, 2)


def _unbeaten(points: Sequence[_Point], up: int, right: int) -> list[_Point]:
    """The Pareto-optimal points; `up` and `right` are 1 or -1: whether more is better on the y and x axis."""

    def beats(one: _Point, other: _Point) -> bool:
        gains = (up * (one.y[0] - other.y[0]), right * (one.x[0] - other.x[0]))
        return min(gains) >= 0 and max(gains) > 0

    return [point for point in points if not any(beats(other, point) for other in points)]


def _sign(board: Board) -> int:
    return -1 if board.column.better == "lower" else 1


def _bar(axes: Any, span: Span, at: float, colour: Any, horizontal: bool) -> None:
    """Draw an interval; an arrow marks an end outside the axes, whose limits must be set before."""
    _, low, high = span
    least, most = axes.get_xlim() if horizontal else axes.get_ylim()
    ends = [max(low, least), min(high, most)]
    line = (ends, [at, at]) if horizontal else ([at, at], ends)
    axes.plot(*line, color=colour, linewidth=2)
    for end, beyond, mark in ((least, low < least, "<v"), (most, high > most, ">^")):
        if beyond:
            place = ([end], [at]) if horizontal else ([at], [end])
            axes.plot(*place, marker=mark[0 if horizontal else 1], color=colour, markersize=6, clip_on=False)


def _interval(cell: TableCell) -> Span:
    assert cell.ours is not None
    ours = cell.ours
    return (ours.mean, ours.mean, ours.mean) if np.isnan(ours.low) else (ours.mean, ours.low, ours.high)


def _room(numbers: Sequence[float]) -> tuple[float, float]:
    room = 0.35 * (max(numbers) - min(numbers)) or 0.05 * abs(max(numbers)) or 1.0
    return min(numbers) - room, max(numbers) + room


def _names(axes: Any, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [escape.figure(row.title) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)


def _legend(axes: Any, columns: int, below: float = 0.18) -> None:
    """Add the legend below the axes; `below`: height of the axis texts, as a share of the axes' height."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, -below), ncols=columns)


def _untrained(board: Board) -> float | None:
    """The mean score before training, in the column's units; None if it was not evaluated."""
    values = [
        score.value * SCALE.get(board.column.format, 1.0)
        for run in {run.id: run for _, cell in board.valued for run in cell.runs}.values()
        for score in run.record.scores
        if (score.evaluation, score.scorer, score.stage) == (board.column.evaluation, board.column.scorer, "untrained")
    ]
    return float(np.mean(values)) if values else None
