"""metrics.jsonl: one JSON object a line, flushed as written; the truth that every tracker is a view of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdsbench.core.files import write_atomic


class MetricsFile:
    """Appends lines of {"kind", "step", numbers...}."""

    def __init__(self, path: Path, resume_after: int) -> None:
        """Open for appending; lines of steps after `resume_after` belong to work that was lost and are cut off."""
        self.path = path
        kept = [line for line in read(path) if line["step"] <= resume_after]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", buffering=1)

    def write(self, kind: str, step: int, **numbers: Any) -> None:
        self._file.write(json.dumps({"kind": kind, "step": step, **numbers}) + "\n")

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; an unfinished last line (of a killed process) is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
