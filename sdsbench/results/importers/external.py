"""An external record: what another tool measured. It has no provenance that we could check, so it is no `Record`."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sdsbench.core.errors import DamagedFile
from sdsbench.core.files import write_atomic

FOLDER = "results/external"


class ExternalRecord(BaseModel):
    """One result of another tool; numbers it does not state are None."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

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
    made_with: str = ""  # package versions and device, as the tool states them
    origin: str  # sha256 of the imported file


def write(folder: Path, record: ExternalRecord) -> Path:
    """<folder>/<tool>/<name>.json, replacing an earlier import of the same."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in record.name)
    path = folder / record.tool.split()[0] / f"{safe}.json"
    write_atomic(path, json.dumps(record.model_dump(), indent=1, sort_keys=True) + "\n")
    return path


def read_all(folder: Path) -> list[ExternalRecord]:
    """Every external record below a folder, none where it does not exist. Raises DamagedFile for a bad file."""
    records = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            records.append(ExternalRecord.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise DamagedFile(f"{path}: not an external record: {error.errors()[0]['msg']}. Import it again.") from None
    return records


def origin(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
