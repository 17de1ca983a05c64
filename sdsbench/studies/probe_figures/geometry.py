"""The figures of runs with probes: one function each, with one column of axes per optimizer. Registered in studies.

W0 is the frozen weight, dW its update, G the full gradient of W, A and B the adapter's factors (dW = s B A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from sdsbench.results import escape
from sdsbench.results.figure_style import Figure, new_figure
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.studies.probe_figures.probed_runs import ProbedRuns, probed_runs


def of_probes(draw: Callable[[ProbedRuns], Figure]) -> Callable[[Sequence[Run]], Figure]:
    """Decorator: a function of the probes' data as a registered figure needs it, a function of runs."""
    return lambda runs: draw(probed_runs(runs))


def _lines(data: ProbedRuns, optimizer: str) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """(run ids, style) of each line: the method's colour and marker; shades and dashes tell its variants apart."""
    lines = data.lines(optimizer)
    for line, method in lines:
        variants = [other for other, of in lines if of == method]
        look = data.palette.style(method, variants.index(line))
        yield data.of(optimizer, line), look | {"label": escape.figure(line), "markersize": 3.5, "linewidth": 1.2}


def _over_training(data: ProbedRuns, title: str, measures: dict[str, str], log: bool = False) -> Figure:
    """Each measure (key -> axis label) against the step: median over layers; line: mean, band: range over seeds."""
    optimizers = data.optimizers
    figure, axes = new_figure(len(measures), len(optimizers), title)
    for row, (key, label) in enumerate(measures.items()):
        for column, optimizer in enumerate(optimizers):
            axis = axes[row][column]
            for runs, style in _lines(data, optimizer):
                table = _median_over_layers(data, runs, key)
                if table.empty:
                    continue
                axis.plot(table.index, table.mean(axis=1), **style)
                axis.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=style["color"], alpha=0.12)
            if log:
                axis.set_yscale("log")
            _labels(axis, row, column, optimizer, label)
    return _legend(figure, axes)


@of_probes
def loss(data: ProbedRuns) -> Figure:
    """Training loss against the step: mean over seeds, running mean of 5 steps."""
    figure, axes = new_figure(1, len(data.optimizers), "Training loss (mean over seeds, running mean of 5 steps)")
    train = data.steps[data.steps["kind"] == "train"]
    for column, optimizer in enumerate(data.optimizers):
        axis = axes[0][column]
        for runs, style in _lines(data, optimizer):
            rows = train[train["run_id"].isin(runs)]
            curve = rows.groupby("step")["loss"].mean().rolling(5, min_periods=1).mean()
            axis.plot(curve.index, curve, **style | {"marker": ""})
        axis.set_yscale("log")
        _labels(axis, 0, column, optimizer, "loss")
    return _legend(figure, axes)


@of_probes
def refresh_jumps(data: ProbedRuns) -> Figure:
    """Relative change |jump| / |dW| at each refresh of SDS-LoRA's bases."""
    figure, axes = new_figure(1, len(data.optimizers), "Jump of dW at a refresh, relative to |dW| (mean over layers)")
    events = data.steps[data.steps["kind"] == "method"]
    for column, optimizer in enumerate(data.optimizers):
        axis = axes[0][column]
        for runs, style in _lines(data, optimizer):
            rows = events[events["run_id"].isin(runs)]
            rows = rows[rows["jump_mean"].notna()] if "jump_mean" in rows else rows.iloc[:0]
            if not rows.empty:
                axis.plot(rows["step"], rows["jump_mean"], **style | {"linestyle": ""})
                axis.set_yscale("log")
        _labels(axis, 0, column, optimizer, "|jump| / |dW|")
    return _legend(figure, axes)


@of_probes
def spectra(data: ProbedRuns) -> Figure:
    """Singular values of A, B and dW at the last probed step, relative to the largest; median over layers and seeds."""
    keys = {"A_values": "A", "B_values": "B", "update_values": "dW"}
    figure, axes = new_figure(len(data.optimizers), len(keys), "Spectra at the last look")
    for row, optimizer in enumerate(data.optimizers):
        for column, (key, name) in enumerate(keys.items()):
            axis = axes[row][column]
            for runs, style in _lines(data, optimizer):
                values = _last_lists(data, runs, key)
                if values.size:
                    relative = np.nanmedian(values / values[:, :1], axis=0)
                    shown = relative > 1e-5
                    axis.plot(1 + np.flatnonzero(shown), relative[shown], **style)
            axis.set(yscale="log", title=f"{optimizer}: {name}")
            axis.set_xlabel("index of the singular value", fontsize=8)
        axes[row][0].set_ylabel("relative to the largest", fontsize=8)
    return _legend(figure, axes)


@of_probes
def anisotropy(data: ProbedRuns) -> Figure:
    """Gain of G along dW's singular directions at the last probed step; equal gains mean an isotropic method."""
    figure, axes = new_figure(
        1, len(data.optimizers), "How strongly G passes along dW's singular directions (last look)"
    )
    for column, optimizer in enumerate(data.optimizers):
        axis = axes[0][column]
        for runs, style in _lines(data, optimizer):
            gains = _last_lists(data, runs, "singular_gains")
            if gains.size:
                relative = np.nanmedian(gains / gains[:, :1], axis=0)
                axis.plot(1 + np.arange(len(relative)), relative, **style)
        axis.set_ylim(bottom=0)
        _labels(axis, 0, column, optimizer, "gain relative to the first direction")
        axis.set_xlabel("singular direction of dW, largest first", fontsize=8)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return _legend(figure, axes)


_BY = "alignment of the first-order change with G (mean over looks)"


def _by(data: ProbedRuns, part: str, title: str) -> Figure:
    figure, axes = new_figure(1, len(data.optimizers), title, width=4.2)
    for column, optimizer in enumerate(data.optimizers):
        axis = axes[0][column]
        for runs, style in _lines(data, optimizer):
            rows = data.probes[data.probes["run_id"].isin(runs)]
            means = rows.assign(alignment=pd.to_numeric(rows["alignment"])).groupby(part)["alignment"].mean()
            axis.plot([str(name) for name in means.index], means, **style)
        _labels(axis, 0, column, optimizer, "cos(first-order change, G)")
        axis.set_xlabel({"kind": "layer type", "depth": "block"}[part], fontsize=8)
        axis.tick_params(axis="x", rotation=30 if part == "kind" else 0)
    return _legend(figure, axes)


effective_rank = of_probes(
    partial(
        _over_training,
        title="Effective rank of what a gradient does to W",
        measures={
            "equivalent_effective_rank": "effective rank of the change for G",
            "gradient_effective_rank": "effective rank of G itself",
        },
    )
)
alignment = of_probes(
    partial(
        _over_training,
        title="Alignment with the full gradient G",
        measures={"alignment": "cos(first-order change, G)", "actual_alignment": "cos(optimizer's step, -G)"},
    )
)
factors = of_probes(
    partial(
        _over_training,
        title="Condition of the factors",
        log=True,
        measures={"condition_A": "condition number of A", "condition_B": "condition number of B"},
    )
)
bases = of_probes(
    partial(
        _over_training,
        title="How much of G's leading subspace the bases see",
        measures={"up_overlap": "output side: mean cos^2", "down_overlap": "input side: mean cos^2"},
    )
)
updates = of_probes(
    partial(
        _over_training,
        title="The update",
        measures={"update_norm_relative": "|dW| / |W0|", "update_effective_rank": "effective rank of dW"},
    )
)
by_layer_type = of_probes(partial(_by, part="kind", title=f"By layer type: {_BY}"))
by_depth = of_probes(partial(_by, part="depth", title=f"By depth: {_BY}"))


def _median_over_layers(data: ProbedRuns, run_ids: list[str], key: str) -> pd.DataFrame:
    """Median over layers, as steps x runs; undefined values (0 / 0) are left out."""
    if key not in data.probes:
        return pd.DataFrame()
    rows = data.probes[data.probes["run_id"].isin(run_ids)]
    numbers = rows.assign(value=pd.to_numeric(rows[key]))
    return numbers.pivot_table(index="step", columns="run_id", values="value", aggfunc="median")


def _last_lists(data: ProbedRuns, run_ids: list[str], key: str) -> np.ndarray:
    """Spectra of all layers and runs at the last probed step, one per row, cut to the shortest; empty without any."""
    rows = data.probes[data.probes["run_id"].isin(run_ids)]
    rows = rows[rows["step"] == rows.groupby("run_id")["step"].transform("max")]
    lists = [values for values in rows.get(key, []) if isinstance(values, list) and len(values) > 1]
    shortest = min(map(len, lists), default=0)
    return np.array([values[:shortest] for values in lists], dtype=float)


def _labels(axis: Any, row: int, column: int, optimizer: str, label: str) -> None:
    axis.set_xlabel("step", fontsize=8)
    if row == 0:
        axis.set_title(optimizer, fontsize=9)
    if column == 0:
        axis.set_ylabel(label, fontsize=8)


def _legend(figure: Figure, axes: Any) -> Figure:
    """Add one legend for all axes at the right."""
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside right center", fontsize=7)
    return figure
