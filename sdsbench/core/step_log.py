"""metrics.jsonl: one JSON object a line, flushed as written; the truth that records and trackers are views of.

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
    """Lines as they stand in the file."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def cut(path: Path, step: int | None) -> None:
    """Keep the lines up to a step, since later ones belong to work that was lost; None: keep nothing."""
    _rewrite(path, [] if step is None else [line for line in read(path) if line["step"] <= step])


def drop_scores(path: Path, stage: str, step: int | None = None) -> None:
    """Leave out the scores of a stage, or those of it after one step."""
    dropped = [line for line in scores(path, stage) if step in (None, line["step"])]
    if dropped:
        _rewrite(path, [line for line in read(path) if line not in dropped])


def scores(path: Path, stage: str) -> list[dict[str, Any]]:
    """The scores of a stage."""
    return [line for line in read(path) if line["kind"] == "eval" and line["stage"] == stage]


def _rewrite(path: Path, lines: list[dict[str, Any]]) -> None:
    write_atomic(path, text_of(lines))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a step log; none where there is no log, and without an unfinished last line (of a killed process).

    Raises DamagedFile for a line that is none of a step log.
    """
    if not is_there(path):
        return []
    whole_lines, _, _ = read_text(path, STEPS, below=path.parent).rpartition("\n")
    return rows_of(whole_lines, _wrong, path)


_NEEDED = {"train": ("loss",), "held_out": ("loss",), "eval": ("stage", "evaluation", "scorer", "value")}
_TEXTS = ("kind", "stage", "evaluation", "scorer", "floor_of", "unit", "better")


def _wrong(line: dict[str, Any]) -> str:
    """What is wrong with the form of a line; empty for a good one."""
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
        elif not (finite(value) or isinstance(value, float)):  # a float may also be nan: what a layer had none of
            return f"{key[:40]}: accepted: a number"
    return ""
