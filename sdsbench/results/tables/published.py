"""The numbers printed in the papers (results/paper/), from a checkout or the installed package."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sdsbench.core.errors import Unavailable
from sdsbench.core.package import bundled_folder


@dataclass(frozen=True)
class Published:
    """A printed number in the units of its table (points of 100 for scores), with its rounding tolerance."""

    value: float
    tolerance: float | None
    source: str
    note: str = ""


def folder() -> Path:
    """results/paper of a checkout, else sdsbench/paper of the installed package."""
    return bundled_folder("paper", "results/paper")


@functools.cache
def values(paper: str) -> pd.DataFrame:
    """All numbers of one paper; columns are text except value and tolerance. Empty if the paper has no file."""
    path = folder() / f"{paper}.csv"
    columns = [
        "paper", "source", "version", "table", "model", "task", "metric", "method", "rank", "value",
        "tolerance", "note",
    ]  # fmt: skip
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in columns if name not in frame]
    if missing:
        raise Unavailable(f"{path.name}: columns missing: {', '.join(missing)}")
    return frame.assign(value=pd.to_numeric(frame["value"]), tolerance=pd.to_numeric(frame["tolerance"]))


@functools.cache
def _rows(paper: str) -> list[dict[str, Any]]:
    return values(paper).to_dict("records")


def lookup(paper: str, keys: Mapping[str, str]) -> Published | None:
    """The number with these column values (table, model, task, metric, method, rank, note); None if there is none.

    Raises ValueError if several numbers match.
    """
    found = [row for row in _rows(paper) if all(row[column] == wanted for column, wanted in keys.items())]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{dict(keys)} fits {len(found)} numbers of {paper}")
    row = found[0]
    tolerance = None if pd.isna(row["tolerance"]) else float(row["tolerance"])
    return Published(float(row["value"]), tolerance, str(row["source"]), str(row["note"]))


@functools.cache
def parameter_counts() -> dict[tuple[str, str, int | None], int]:
    """(model, method, rank) -> exact number of trainable parameters, classifier heads excluded."""
    frame = pd.read_csv(folder() / "parameter_counts.csv", dtype=str, keep_default_na=False)
    return {
        (row.model, row.method, int(row.rank) if row.rank else None): int(row.trainable_parameters)
        for row in frame.itertuples(index=False)
    }


def hyperparameters() -> pd.DataFrame:
    """LoRA-SB's Tables 8 and 9 as text, one row per setting and key."""
    return pd.read_csv(folder() / "hyperparameters.csv", dtype=str, keep_default_na=False)
