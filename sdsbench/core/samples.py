"""Per-question outputs: one JSON object a line, compressed with Zstandard, written whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import zstandard

from sdsbench.core.errors import DamagedFile
from sdsbench.core.files import write_atomic
from sdsbench.core.limits import ANSWERS
from sdsbench.core.reading import finite, read_packed_rows, whole


def is_storable(name: str) -> bool:
    """Whether a name of an evaluation or a stage gives a file name that no other name gives (see `path_of`)."""
    return "__" not in name and "." not in name


def path_of(folder: Path, evaluation: str, stage: str) -> Path:
    """samples/<evaluation, / as __>.<stage>.jsonl.zst of a run folder: one file per evaluation and stage.

    Raises ValueError for a name whose file name could equal that of another evaluation.
    """
    if not (is_storable(evaluation) and is_storable(stage)):
        raise ValueError(f"evaluation {evaluation!r}, stage {stage!r}: accepted: names without `__` and `.`")
    return folder / "samples" / f"{evaluation.replace('/', '__')}.{stage}.jsonl.zst"


def packed(samples: Iterable[dict[str, Any]]) -> bytes:
    """Samples as the compressed bytes of a samples file."""
    text = "".join(json.dumps(sample, ensure_ascii=False, sort_keys=True) + "\n" for sample in samples)
    return zstandard.ZstdCompressor(level=10).compress(text.encode())


def write(path: Path, samples: Iterable[dict[str, Any]]) -> None:
    """Write all samples of one evaluation, replacing an existing file."""
    write_atomic(path, packed(samples))


def without_texts(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples without texts: only verdicts and numbers, and one hash that identifies the whole set of questions."""
    questions = questions_of(samples)
    return [
        {"questions": questions, **{key: value for key, value in sample.items() if not isinstance(value, str)}}
        for sample in samples
    ]


def holds_answer(sample: Mapping[str, Any]) -> bool:
    """Whether a sample holds the answer's text; samples of a bundle of verdicts hold verdicts only."""
    return "response" in sample


def questions_of(samples: Sequence[dict[str, Any]]) -> str:
    """A hash of the questions, in order."""
    if samples and "questions" in samples[0]:
        return str(samples[0]["questions"])
    return sha256("\n".join(str(sample.get("id", sample["index"])) for sample in samples).encode()).hexdigest()


def correct(sample: dict[str, Any], scorer: str) -> float:
    """The stored verdict as a number from 0 to 1; undecided counts as 0."""
    return float(sample["scores"][scorer] or 0.0)


def read(path: Path) -> list[dict[str, Any]]:
    """All samples of one evaluation, by index. Raises DamagedFile if the file is not a valid list of samples."""
    rows = read_packed_rows(path, ANSWERS, _wrong, below=path.parent.parent)
    if len({row["index"] for row in rows}) < len(rows):
        raise DamagedFile(f"{path}: two answers have one index.")
    return sorted(rows, key=lambda row: row["index"])


def read_probes(path: Path) -> list[dict[str, Any]]:
    """The rows of a probe (training/probes/observer.py), one per layer. Raises DamagedFile if the file is not a valid
    list of rows."""
    return read_packed_rows(path, ANSWERS, _wrong_probe, below=path.parent.parent)


def _wrong_probe(row: dict[str, Any]) -> str:
    if not isinstance(row.get("layer"), str):
        return "layer: accepted: the name of a layer"
    for key, value in row.items():
        numbers = value if isinstance(value, list) else [] if key == "layer" or value is None else [value]
        if not all(finite(number) for number in numbers):
            return f"{key[:40]}: accepted: a number, null or a list of numbers"
    return ""


def _wrong(sample: dict[str, Any]) -> str:
    """Describes what is wrong with the form of a sample; empty for a valid one."""
    if not whole(sample.get("index")):
        return "index: accepted: a whole number from 0"
    for key in ("id", "prompt", "questions"):
        if not isinstance(sample.get(key, ""), str):
            return f"{key}: accepted: a text"
    if not (isinstance(sample.get("target", ""), str) or finite(sample["target"])):
        return "target: accepted: a text or a number"
    response = sample.get("response", "")
    numbers = isinstance(response, list) and response and all(isinstance(value, float) for value in response)
    if not (isinstance(response, str) or finite(response) or numbers):
        return "response: accepted: a text, a number or a list of numbers"
    if not whole(sample.get("gold", 0)):
        return "gold: accepted: the number of the right choice"
    if not isinstance(sample.get("truncated", False), bool):
        return "truncated: accepted: true or false"
    scores = sample.get("scores", {})
    if not isinstance(scores, dict) or not all(value is None or finite(value) for value in scores.values()):
        return "scores: accepted: a number or null for each scorer"
    return ""
