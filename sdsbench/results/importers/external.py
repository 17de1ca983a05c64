"""External records: results of another tool. Their provenance cannot be checked, so they are no `Record`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sdsbench.core.errors import DamagedFile, SdsbenchError
from sdsbench.core.files import write_atomic
from sdsbench.core.limits import EXTERNAL
from sdsbench.core.reading import FileContent, first_fault, is_there, read_bytes

_LONGEST = 150  # bytes of a name that becomes a file's; file systems have at most 255


class ExternalRecord(FileContent):
    """One result of another tool; numbers that it does not report are None."""

    tool: str  # peft method_comparison | wandb
    name: str
    model: str
    method: str
    task: str
    rank: int | None = None
    seed: int | None = None
    lr: float | None = None
    scores: dict[str, float]
    train_seconds: float | None = None
    memory_bytes: int | None = None
    trainable: int | None = None
    status: str = ""
    made_with: str = ""  # package versions and device, as the tool reports them
    origin: str  # sha256 of the imported file


def write(folder: Path, record: ExternalRecord) -> Path:
    """<folder>/<tool>/<name>.json, replacing an earlier import of the same and of no other."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in record.name)
    short = safe.encode()[:_LONGEST].decode(errors="ignore")
    path = folder / record.tool.split()[0] / f"{short}.json"
    if short != safe or _holds_another(path, record.name):  # `a b` beside `a-b`
        path = path.with_name(f"{short}-{hashlib.sha256(record.name.encode()).hexdigest()[:8]}.json")
    write_atomic(path, json.dumps(record.model_dump(), indent=1, sort_keys=True) + "\n")
    return path


def _holds_another(path: Path, name: str) -> bool:
    try:
        return is_there(path) and _read(path).name != name
    except DamagedFile:
        return False


def read_all(folder: Path) -> tuple[list[ExternalRecord], dict[str, str]]:
    """All external records below a folder (none if it does not exist), and {path: reason} of unreadable files."""
    records: list[ExternalRecord] = []
    damaged: dict[str, str] = {}
    for path in sorted(folder.glob("*/*.json")):
        try:
            records.append(_read(path))
        except DamagedFile as error:
            damaged[str(path)] = str(error)
    return records, damaged


def _read(path: Path) -> ExternalRecord:
    try:
        return ExternalRecord.model_validate_json(read_bytes(path, EXTERNAL))
    except ValidationError as error:
        raise DamagedFile(f"{path}: not an external record: {first_fault(error)}. Import it again.") from None


@contextmanager
def importing(tool: str, path: Path) -> Iterator[None]:
    """Context manager: turn any error while reading another tool's file into a DamagedFile that names the file."""
    try:
        yield
    except SdsbenchError:
        raise
    except Exception as error:  # a foreign format: any value can have any type
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DamagedFile(f"{path}: not what {tool} writes ({reason}).") from None


def origin(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, EXTERNAL)).hexdigest()


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
