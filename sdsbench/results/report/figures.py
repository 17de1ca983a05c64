"""The figures of the report, one function each: data -> matplotlib Figure, or None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sdsbench.results.report.boards import Board
from sdsbench.results.report.style import drawing, look
from sdsbench.results.tables import run_values
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.names import method_title
from sdsbench.results.tables.runs import Run

LOSS_POINTS = 200  # at most, per line
WIDE = 8  # costs further apart than this factor are drawn on a logarithmic axis


def seeds(board: Board, link: Callable[[str], str]) -> Figure | None:
    """Every seed as a point that links to its run, with mean and 95 % interval."""
    if not board.valued:
        return None
    with drawing():
        figure = Figure(figsize=(5.2, 0.9 + 0.3 * len(board.valued)))
        axes = figure.subplots()
        for height, (_, cell) in enumerate(reversed(board.valued)):
            style = look(cell.runs[0].record.method)
            by_id = {run.id: 100 * (run_values.value(run, board.column) or 0.0) for run in cell.runs}
            spread = np.linspace(0.16, 0.3, len(by_id)) if len(by_id) > 1 else [0.2]
            points = axes.scatter(list(by_id.values()), height + np.array(spread), s=22, color=style["color"],
                                  marker=style["marker"], alpha=0.75, linewidths=0)  # fmt: skip
            points.set_urls([link(run_id) for run_id in by_id])
            mean, low, high = _interval(cell)
            axes.plot([low, high], [height, height], color=style["color"], linewidth=2)
            axes.plot([mean], [height], marker="|", markersize=10, color=style["color"], markeredgewidth=2)
        axes.set_yticks(range(len(board.valued)), [row.title for row, _ in reversed(board.valued)])
        axes.set_xlabel("score (points: seeds; line: mean and 95 % interval)")
        _show_the_points(axes, board)
    return figure


def pareto(board: Board, measure: str, label: str, scale: float = 1.0) -> Figure | None:
    """Mean score against one cost; methods that no other beats on both are ringed."""
    points = []
    for row, cell in board.valued:
        costs = [cost * scale for run in cell.runs if (cost := _cost(run, measure)) is not None]
        if costs and cell.ours and np.mean(costs) > 0:
            points.append((row, cell, float(np.mean(costs)), cell.ours.mean))
    if not points:
        return None
    with drawing():
        figure = Figure(figsize=(4.2, 3.2))
        axes = figure.subplots()
        costs = [cost for _, _, cost, _ in points]
        axes.set_xscale("log" if max(costs) > WIDE * min(costs) else "linear")
        for row, cell, cost, score in points:
            style = look(cell.runs[0].record.method)
            beaten = any(c <= cost and s >= score and (c, s) != (cost, score) for _, _, c, s in points)
            if not beaten:
                axes.scatter([cost], [score], s=150, facecolors="none", edgecolors="#444444", linewidths=1)
            axes.scatter([cost], [score], s=36, color=style["color"], marker=style["marker"], label=row.title)
        axes.set_xlabel(label)
        axes.set_ylabel("score")
        axes.margins(0.12)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=2)
    return figure


def learning_rates(board: Board, runs: Sequence[Run]) -> Figure | None:
    """Score against learning rate: a line a method (mean over seeds), a point a seed; validation where it was tuned."""
    here = [run for run in runs if run.fits(board.column.where) and run.record.status == "done"]
    tuned = {run.record.method for run in here if run.record.tuning}
    series: dict[tuple[str, int | None], dict[float, list[float]]] = {}
    for run in here:
        stage = "validation" if run.record.method in tuned else board.column.stage
        score = next((s.value for s in run.record.scores if s.evaluation == board.column.evaluation
                      and s.scorer == board.column.scorer and s.stage == stage), None)  # fmt: skip
        if score is not None:
            series.setdefault((run.record.method, run.record.rank), {}).setdefault(run.record.lr, []).append(
                100 * score
            )
    series = {key: rates for key, rates in series.items() if len(rates) > 1}
    if not series:
        return None
    with drawing():
        figure = Figure(figsize=(5.2, 3.4))
        axes = figure.subplots()
        axes.set_xscale("log")
        for (method, rank), rates in sorted(series.items(), key=str):
            style = look(method)
            xs = sorted(rates)
            axes.plot(xs, [np.mean(rates[x]) for x in xs], label=method_title(method, rank), markersize=5, **style)
            xs_all, ys_all = [x for x in xs for _ in rates[x]], [y for x in xs for y in rates[x]]
            axes.scatter(xs_all, ys_all, s=9, color=style["color"], alpha=0.5, linewidths=0)
        rates_shown = sorted({rate for rates in series.values() for rate in rates})
        axes.set_xticks(rates_shown, [f"{rate:g}" for rate in rates_shown])
        axes.minorticks_off()
        axes.set_xlabel("learning rate")
        axes.set_ylabel("validation score" if tuned else "score")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3)
    return figure


def losses(board: Board) -> Figure | None:
    """Training loss against step: mean over seeds, each a moving average."""
    lines = []
    for row, cell in board.valued:
        curves = [_loss_curve(run) for run in cell.runs]
        curves = [curve for curve in curves if len(curve) > 1]
        if curves:
            length = min(map(len, curves))
            lines.append((row, cell, np.mean([curve[:length] for curve in curves], axis=0)))
    if not lines:
        return None
    with drawing():
        figure = Figure(figsize=(5.2, 3.4))
        axes = figure.subplots()
        for row, cell, curve in lines:
            style = look(cell.runs[0].record.method) | {"marker": ""}
            window = max(1, len(curve) // 20)
            smooth = np.convolve(curve, np.ones(window) / window, mode="valid")
            steps = np.arange(window, len(curve) + 1)
            kept = slice(None, None, max(1, len(smooth) // LOSS_POINTS))
            axes.plot(steps[kept], smooth[kept], label=row.title, linewidth=1.3, **style)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("training loss (moving average)")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3)
    return figure


def _interval(cell: TableCell) -> tuple[float, float, float]:
    assert cell.ours is not None
    ours = cell.ours
    return (ours.mean, ours.mean, ours.mean) if np.isnan(ours.low) else (ours.mean, ours.low, ours.high)


def _show_the_points(axes: Any, board: Board) -> None:
    """Intervals of two seeds can be wider than the whole scale; they may leave the frame, the points may not."""
    numbers = [
        100 * v
        for _, cell in board.valued
        for run in cell.runs
        if (v := run_values.value(run, board.column)) is not None
    ]
    room = max(1.0, 0.35 * (max(numbers) - min(numbers)))
    axes.set_xlim(min(numbers) - room, max(numbers) + room)


def _cost(run: Run, measure: str) -> float | None:
    if run_values.is_cost(measure) and not run_values.own_cost(run, measure):
        return None
    number = run.flat.get(measure)
    return float(number) if isinstance(number, int | float) else None


def _loss_curve(run: Run) -> list[float]:
    return [line["loss"] for line in run.steps("train")]
