"""Results of a benchmark: ratios, a CSV file with the versions that produced it, a text table and a plot."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdsbench.training.precision import processor_name

Rows = Mapping[str, dict[str, Any]]


def add_speeds(rows: Rows, seconds: Mapping[str, Sequence[float]], tokens: Sequence[int], references: Sequence[str]):
    """Add to each row tokens/s (20th, 50th, 80th percentile) and the median over rounds of its time relative to each
    reference. `seconds`: of every round, by contestant; `tokens`: of every round."""
    for name, taken in seconds.items():
        speeds = [count / second for count, second in zip(tokens, taken, strict=True)]
        low, middle, high = np.percentile(speeds, [20, 50, 80])
        rows[name] |= {
            "tokens_per_second": round(middle, 1), "p20": round(low, 1), "p80": round(high, 1),
            "step_seconds": round(statistics.median(taken), 4),
        }  # fmt: skip
        for reference in references:
            if reference in seconds:
                pairs = [mine / theirs for mine, theirs in zip(taken, seconds[reference], strict=True)]
                rows[name][f"time_against_{reference}"] = round(statistics.median(pairs), 3)


def add_ratio(row: dict[str, Any], rows: Rows, key: str, references: Sequence[str]) -> None:
    """Add to the row its value of `key` relative to that of each reference."""
    for reference in references:
        if rows.get(reference, {}).get(key):
            row[f"{key}_against_{reference}"] = round(row[key] / rows[reference][key], 3)


def write(path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], device: torch.device) -> None:
    """Write one CSV row per contestant, each with the facts of the run, device, versions and date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    where = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "date": datetime.date.today().isoformat(),
        **{name: _version(name) for name in ("torch", "transformers", "peft", "lm_eval")},
    }
    full = [{**row, **facts, **where} for row in rows]
    columns = list(dict.fromkeys(key for row in full for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(full)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table of aligned text."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *[[_text(row.get(column, "")) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def plot_steps(path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], device: torch.device) -> None:
    """Plot two bar charts side by side: speed with its percentiles, and memory saved for backward."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = sorted(rows, key=lambda row: row["tokens_per_second"])
    names = [row["contestant"] for row in rows]
    colours = ["#b0b0b0" if name.startswith("peft") else "#3569a8" for name in names]
    middle = [row["tokens_per_second"] for row in rows]
    errors = [[m - row["p20"] for m, row in zip(middle, rows, strict=True)],
              [row["p80"] - m for m, row in zip(middle, rows, strict=True)]]  # fmt: skip
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 0.35 * len(rows) + 1.6), sharey=True)
    left.barh(names, middle, color=colours, xerr=errors, error_kw={"lw": 1, "ecolor": "#303030"})
    left.set_xlabel("tokens/s of optimizer steps (median, 20th to 80th percentile)")
    right.barh(names, [row["saved_bytes"] / 2**20 for row in rows], color=colours)
    right.set_xlabel("MiB saved for backward")
    for axis in (left, right):
        axis.locator_params(axis="x", nbins=6)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{facts['model']}, {facts['dtype']}, rank {facts['rank']}, batch {facts['batch']}, {device.type}", fontsize=11
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
