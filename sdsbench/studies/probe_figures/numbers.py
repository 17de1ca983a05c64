"""The numbers behind the figures as CSV: one row per line and measure, with 95 % t-intervals over seeds."""

from __future__ import annotations

import pandas as pd

from sdsbench.results import escape
from sdsbench.results.statistics.intervals import t_interval
from sdsbench.studies.probe_figures.probed_runs import ProbedRuns

MEASURES = (
    "alignment", "actual_alignment", "equivalent_effective_rank", "gradient_effective_rank", "condition_A",
    "condition_B", "up_overlap", "update_effective_rank", "update_norm_relative", "intruders", "weakest_gain",
)  # fmt: skip


def summary_csv(data: ProbedRuns) -> str:
    """Per line and measure: median over layers, then mean over probed steps except the first, then mean over seeds.

    `weakest_gain`: gain of the gradient G along dW's weakest singular direction, relative to the strongest.
    """
    columns = ["optimizer", "line", "lr", "measure", "mean", "low", "high", "seeds"]
    rows: list[list[object]] = []
    for optimizer in data.optimizers:
        for line, _ in data.lines(optimizer):
            runs = data.runs[data.runs["run_id"].isin(data.of(optimizer, line))]
            per_seed = {"tail_loss": runs["tail_loss"].tolist()}
            for measure in MEASURES:
                per_seed[measure] = _per_run(data.probes[data.probes["run_id"].isin(runs["run_id"])], measure)
            for measure, values in per_seed.items():
                if values:
                    interval = t_interval(values)
                    numbers = (interval.mean, interval.low, interval.high)
                    rows.append([optimizer, line, runs["lr"].iloc[0], measure, *numbers, interval.n])
    return escape.csv(pd.DataFrame(rows, columns=columns), digits=4)


def _per_run(probes: pd.DataFrame, measure: str) -> list[float]:
    if measure not in probes:
        return []
    later = probes[probes["step"] > probes.groupby("run_id")["step"].transform("min")]
    medians = later.assign(value=pd.to_numeric(later[measure])).groupby(["run_id", "step"])["value"].median()
    return medians.groupby("run_id").mean().dropna().tolist()
