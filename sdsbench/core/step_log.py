"""metrics.jsonl: one JSON object a line, flushed as written; records and trackers are derived from this file.

{"kind": "train", "step": 3, "loss": ..., "lr": ..., ...}      an optimizer step
{"kind": "method", "step": 3, ...}                             what the method reports of a step
{"kind": "eval", "step": 3, "stage": ..., "scorer": ..., ...}  a score after that step (0: before training)
{"kind": "probe", "step": 3, ...}                              means over layers of a probe
{"kind": "held_out", "step": 3, "loss": ...}                   the loss on held-out training rows (train.best_every)
{"kind": "memory", "step": 3, "micro_tokens": ...}             that step did not fit, and was made in smaller passes
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdsbench.core.files import write_atomic
from sdsbench.core.limits import STEPS
from sdsbench.core.reading import finite, is_there, read_text, rows_of, whole

KINDS = ("train", "method", "eval", "probe", "held_out", "memory")


class StepLog:
    """Appends lines to a step log while it is open."""

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        self._file = os.fdopen(handle, "a", buffering=1)

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, kind: str, step: int, **numbers: Any) -> None:
        self._file.write(text_of([{"kind": kind, "step": step, **numbers}]))


def text_of(lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines in the format of the file."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def cut(path: Path, step: int | None) -> None:
    """Remove the lines after a step, since they belong to steps lost in a crash; None: remove all lines."""
    _rewrite(path, [] if step is None else [line for line in read(path) if line["step"] <= step])


def drop_scores(path: Path, stage: str, step: int | None = None) -> None:
    """Remove the scores of a stage, or only those of the stage at one step."""
    dropped = [line for line in scores(path, stage) if step in (None, line["step"])]
    if dropped:
        _rewrite(path, [line for line in read(path) if line not in dropped])


def scores(path: Path, stage: str) -> list[dict[str, Any]]:
    """The scores of a stage."""
    return [line for line in read(path) if line["kind"] == "eval" and line["stage"] == stage]


def _rewrite(path: Path, lines: list[dict[str, Any]]) -> None:
    write_atomic(path, text_of(lines))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a step log; empty if there is no log. An incomplete last line (the process was killed) is left out.

    Raises DamagedFile for a line that does not have the form of a step log.
    """
    if not is_there(path):
        return []
    whole_lines, _, _ = read_text(path, STEPS, below=path.parent).rpartition("\n")
    return rows_of(whole_lines, _wrong, path)


_NEEDED = {"train": ("loss",), "held_out": ("loss",), "eval": ("stage", "evaluation", "scorer", "value")}
_TEXTS = ("kind", "stage", "evaluation", "scorer", "floor_of", "unit", "better")


def _wrong(line: dict[str, Any]) -> str:
    """Describes what is wrong with the form of a line; empty for a valid one."""
    if not isinstance(line.get("kind"), str):
        return f"kind: accepted: {', '.join(KINDS)}"
    if not whole(line.get("step")):
        return "step: accepted: a whole number from 0"
    for key in _NEEDED.get(line["kind"], ()):
        if line.get(key) is None:
            return f"{key}: a line of kind {line['kind']} has it"
    for key, value in line.items():
        if value is None or isinstance(value, bool):
            continue
        if key in _TEXTS:
            if not isinstance(value, str):
                return f"{key}: accepted: a text"
        elif not (finite(value) or isinstance(value, float)):  # a float may be nan: a value that a layer does not have
            return f"{key[:40]}: accepted: a number"
    return ""
