"""Writing the study's results: cells and exponents as CSV and Markdown, rates and curves as figures."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from sdsbench.core.files import write_atomic
from sdsbench.results import escape
from sdsbench.results.figure_style import ENDINGS, Figure, Palette, new_figure, save
from sdsbench.results.statistics.intervals import Interval
from sdsbench.results.tables.titles import method_title
from sdsbench.studies.theory.rates import SLOWEST
from sdsbench.studies.theory.study import SCHEDULES, Grid, TheoryCell, exponents

COLUMNS = (
    "problem", "optimizer", "method", "condition", "lr", "lr_at_edge", "seeds", "diverged",
    "rate", "rate_low", "rate_high", "final_log10", "final_log10_low", "final_log10_high",
)  # fmt: skip


def write(cells: list[TheoryCell], grid: Grid, folder: Path) -> list[Path]:
    """Write all tables and figures of a study to `folder`; return their paths."""
    tables = {
        "cells.csv": _cells_csv(cells),
        "exponents.csv": _exponents_csv(cells),
        "theory.md": markdown(cells, grid),
    }
    for name, text in tables.items():
        write_atomic(folder / name, text)
    written = [folder / name for name in tables]
    for kind in grid.kinds:
        for name, draw in (("rate", _rate_figure), ("curves", _curve_figure)):
            stem = folder / f"{name}_{kind}"
            save(draw(cells, grid, kind), stem)
            written += [stem.with_suffix(f".{ending}") for ending in ENDINGS]
    return written


def markdown(cells: list[TheoryCell], grid: Grid) -> str:
    """The tables that docs/mechanism.md includes."""
    s = grid.setting
    lines = [
        f"{s.m} x {s.n}, rank {s.rank}, largest singular value {s.size:g}, noise {s.noise:g}, {grid.steps} steps, "
        f"{grid.seeds} seeds, learning rate tuned per cell over {len(grid.learning_rates)} values by the worst of "
        f"{grid.tuning_seeds} other seeds. Rate: nats of excess loss a step in the second half of the fall. "
        "p: rate ~ condition^-p. Brackets: 95 % t-intervals over seeds.",
        "",
    ]
    found = exponents(cells)
    for kind in grid.kinds:
        for optimizer in grid.optimizers:
            lines += [f"### {kind}, {optimizer} ({SCHEDULES[optimizer]} rate)", ""]
            conditions = " | ".join(f"rate at {condition:g}" for condition in grid.conditions)
            lines += [f"| method | {conditions} | p |", "|---" * (len(grid.conditions) + 2) + "|"]
            for name in grid.methods:
                row = [cell for cell in cells if (cell.kind, cell.optimizer, cell.method) == (kind, optimizer, name)]
                p = found.get((kind, name, optimizer))
                rates = " | ".join(_short(cell.rate) + ("*" if cell.diverged else "") for cell in row)
                lines.append(f"| {method_title(name)} | {rates} | {_short(p) if p else 'diverged'} |")
            lines.append("")
    if any(cell.diverged for cell in cells):
        lines += ["\\* some seeds diverged and are left out.", ""]
    return "\n".join(lines)


def _short(interval: Interval) -> str:
    return f"{interval.mean:.2g} [{interval.low:.2g}, {interval.high:.2g}]"


def _cells_csv(cells: list[TheoryCell]) -> str:
    rows = [
        [c.kind, c.optimizer, c.method, f"{c.condition:g}", c.lr, c.lr_at_edge, len(c.rates), c.diverged,
         *_digits(c.rate), *_digits(c.final_log10)]
        for c in cells
    ]  # fmt: skip
    return _csv(list(COLUMNS), rows)


def _exponents_csv(cells: list[TheoryCell]) -> str:
    rows = [[kind, optimizer, method, *_digits(p), p.n] for (kind, method, optimizer), p in exponents(cells).items()]
    return _csv(["problem", "optimizer", "method", "p", "p_low", "p_high", "seeds"], rows)


def _csv(header: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()


def _style(palette: Palette, method: str) -> dict[str, Any]:
    return palette.style(method) | {"label": escape.figure(method_title(method)), "linewidth": 1.2}


def _digits(interval: Interval) -> list[str]:
    return [f"{value:.5g}" for value in (interval.mean, interval.low, interval.high)]


def _rate_figure(cells: list[TheoryCell], grid: Grid, kind: str) -> Figure:
    figure, axes = new_figure(1, len(grid.optimizers), f"Rate of convergence against condition number ({kind})")
    palette = Palette(grid.methods)
    for axis, optimizer in zip(axes[0], grid.optimizers, strict=True):
        for name in grid.methods:
            row = [cell for cell in cells if (cell.kind, cell.optimizer, cell.method) == (kind, optimizer, name)]
            means = [cell.rate.mean for cell in row]
            bars = [
                [max(0.0, c.rate.mean - max(c.rate.low, SLOWEST)) for c in row],
                [c.rate.high - c.rate.mean for c in row],
            ]
            axis.errorbar(grid.conditions, means, yerr=bars, capsize=2, markersize=4, **_style(palette, name))
        axis.set(xscale="log", yscale="log", title=optimizer, xlabel="condition number of the target")
    axes[0][0].set_ylabel("nats of excess loss a step")
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _curve_figure(cells: list[TheoryCell], grid: Grid, kind: str) -> Figure:
    figure, axes = new_figure(
        len(grid.optimizers), len(grid.conditions), f"Excess loss relative to the start, median over seeds ({kind})"
    )
    palette = Palette(grid.methods)
    for row, optimizer in enumerate(grid.optimizers):
        for column, condition in enumerate(grid.conditions):
            axis = axes[row][column]
            for cell in cells:
                if (cell.kind, cell.optimizer, cell.condition) == (kind, optimizer, condition):
                    style = _style(palette, cell.method) | {"marker": ""}
                    axis.plot(cell.median_curve, **style)
            axis.set_title(f"{optimizer}, condition {condition:g}", fontsize=8)
            axis.set_ylim(-20.5, 1.5)
            axis.tick_params(labelsize=7)
        axes[row][0].set_ylabel("log10 relative excess", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=8)
    axes[0][-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure
