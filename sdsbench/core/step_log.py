"""metrics.jsonl: one JSON object a line, flushed as written; the truth that records and trackers are views of.

{"kind": "train", "step": 3, "loss": ..., "lr": ..., ...}      an optimizer step
{"kind": "method", "step": 3, ...}                             what the method reports of a step
{"kind": "eval", "step": 3, "stage": ..., "scorer": ..., ...}  a score after that step (0: before training)
{"kind": "probe", "step": 3, ...}                              means over layers of a probe
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdsbench.core.files import write_atomic


class StepLog:
    """Appends lines to a step log while it is open."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, kind: str, step: int, **numbers: Any) -> None:
        self._file.write(json.dumps({"kind": kind, "step": step, **numbers}) + "\n")


def cut(path: Path, step: int | None) -> None:
    """Keep the lines up to a step, since later ones belong to work that was lost; None: keep nothing."""
    kept = [line for line in read(path) if step is not None and line["step"] <= step]
    _rewrite(path, kept)


def drop_scores(path: Path, stage: str) -> None:
    """Leave out the scores of a stage."""
    _rewrite(path, [line for line in read(path) if line["kind"] != "eval" or line["stage"] != stage])


def has_scores(path: Path, stage: str) -> bool:
    """Whether the log holds scores of a stage."""
    return any(line["kind"] == "eval" and line["stage"] == stage for line in read(path))


def _rewrite(path: Path, lines: list[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a step log; an unfinished last line (of a killed process) is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
