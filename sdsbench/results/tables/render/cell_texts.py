"""The texts of a cell, made from its row of the frame; all formats use the same texts with different markup."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STATUSES = {
    "missing": "-",
    "unequal": "unequal",
    "oom": "OOM",
    "failed": "failed",
    "timeout": "timeout",
    "preempted": "stopped",
    "running": "running",
}


@dataclass(frozen=True)
class CellTexts:
    """`ours` is empty only for cells that show a status; `paper` is empty if the paper prints no number."""

    ours: str
    spread: str = ""  # ± half-width (seeds)
    paper: str = ""
    difference: str = ""
    note: str = ""
    mark: str = ""


def texts(cell: Mapping[str, Any]) -> CellTexts:
    """The texts of one row of a table's frame."""
    kind = str(cell["format"])
    paper = "" if _absent(cell["paper"]) else compact(cell["paper"], kind)
    if _absent(cell["ours"]):
        return CellTexts(STATUSES[cell["status"]], paper=paper, note=cell["note"] or "")
    if cell["status"] == "counted":
        return CellTexts(exact(cell["ours"], kind) + "†", paper=paper, difference=_signed(cell, kind))
    spread = f"({cell['n']})"
    if not _absent(cell["low"]) and kind != "count":
        spread = f"±{exact((cell['high'] - cell['low']) / 2, kind)} {spread}"
    return CellTexts(exact(cell["ours"], kind), spread, paper, _signed(cell, kind), cell["note"] or "", cell["mark"])


def exact(value: float, kind: str) -> str:
    """Scores and shares with two decimals, counts in full, seconds below 100 with one decimal, other numbers (a loss)
    with four significant digits."""
    if kind == "count":
        return f"{value:,.0f}" if value < 1e10 else compact(value, kind)
    if kind == "seconds":
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
    if kind == "number":
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e10 else f"{value:.4g}"
    return f"{value:.2f}"


def compact(value: float, kind: str) -> str:
    """Abbreviated as in papers: 83.88M."""
    if kind != "count":
        return exact(value, kind)
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.2f}{unit}"
    return f"{value:.0f}"


def _signed(cell: Mapping[str, Any], kind: str) -> str:
    """ours - paper; `=` if a count agrees to the printed digits."""
    if _absent(cell["difference"]):
        return ""
    if kind == "count" and cell["within_tolerance"]:
        return "="
    text = compact(cell["difference"], kind)
    return text if text.startswith("-") else f"+{text}"


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
