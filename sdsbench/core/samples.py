"""Per-question outputs: one JSON object a line, compressed with Zstandard, written whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard

from sdsbench.core.files import write_atomic


def path_of(folder: Path, evaluation: str, stage: str) -> Path:
    """samples/<evaluation, / as __>.<stage>.jsonl.zst of a run folder: another file for every evaluation and stage.

    Raises ValueError for a name that could be taken for another one.
    """
    if "__" in evaluation or "." in evaluation + stage:
        raise ValueError(f"evaluation {evaluation!r}, stage {stage!r}: accepted: names without `__` and `.`")
    return folder / "samples" / f"{evaluation.replace('/', '__')}.{stage}.jsonl.zst"


def write(path: Path, samples: Iterable[dict[str, Any]]) -> None:
    """Write all samples of one evaluation, replacing what was there."""
    text = "".join(json.dumps(sample, ensure_ascii=False, sort_keys=True) + "\n" for sample in samples)
    write_atomic(path, zstandard.ZstdCompressor(level=10).compress(text.encode()))


def correct(sample: dict[str, Any], scorer: str) -> float:
    """The share of a sample's answer that is correct: its stored verdict, where undecided counts as not correct."""
    return float(sample["scores"][scorer] or 0.0)


def read(path: Path) -> list[dict[str, Any]]:
    """All samples of one evaluation."""
    text = zstandard.ZstdDecompressor().decompress(path.read_bytes())
    return [json.loads(line) for line in text.decode().splitlines()]
