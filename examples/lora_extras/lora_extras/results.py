"""The results that this package adds: a table of its methods beside LoRA, and a figure of their training losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sdsbench.core.errors import Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.results import escape
from sdsbench.results.figure_style import Palette, new_figure
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.grid import titles_of
from sdsbench.results.tables.titles import method_order, method_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdsbench.results.tables.loaded_runs import Run

METHODS, RANK = ("lora", "init_ab", "lora_one"), 8


def word_reversal() -> Table:
    """The table extras/word_reversal: score and cost of LoRA, Init[AB] and LoRA-One at rank 8."""
    rows = [Row(method, method_title(method, RANK), {"method": method, "rank": RANK}) for method in METHODS]
    task = {"task": "word_reversal"}
    columns = (
        Column("exact", "Word reversal", task, evaluation="word_reversal", scorer="exact"),
        Column("params", "Params", task, "parameters.adapter", format="count", better=""),
        Column("seconds", "Training, s", task, "seconds.train", format="seconds", better=""),
    )
    title = "Word reversal: LoRA and the methods of lora_extras"
    return Table("extras/word_reversal", title, tuple(rows), columns, real_data=False)


def losses(runs: Sequence[Run]) -> Figure:
    """The figure extras/losses: one line a method, rank and variant; raises Unavailable without runs of the task."""
    chosen = [run for run in runs if run.record.task == "word_reversal" and run.record.status == "done"]
    if not chosen:
        raise Unavailable("no finished run of task=word_reversal.")
    titles, palette = titles_of(chosen), Palette(run.record.method for run in chosen)
    figure, axes = new_figure(1, 1, "Word reversal: training loss, mean over seeds")
    axis = axes[0][0]
    lines = grouped(chosen, lambda run: (run.record.method, titles[run.id]))
    variants: dict[str, int] = {}  # lines of each method so far
    for (method, title), members in sorted(lines.items(), key=lambda item: (method_order(item[0][0]), item[0][1])):
        curves = [[line["loss"] for line in run.steps("train")] for run in members]
        length = min(map(len, curves))
        variants[method] = variants.get(method, -1) + 1
        style = palette.style(method, variants[method])
        mean = np.mean([curve[:length] for curve in curves], axis=0)
        axis.plot(range(1, length + 1), mean, label=escape.figure(title), **style)  # escaped: records may be of others
    axis.set(xlabel="optimizer step", ylabel="training loss")
    axis.legend()
    return figure
