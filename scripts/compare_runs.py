"""Compare the finished runs of two folders: they must be bitwise equal, except for times and attempts.

python scripts/compare_runs.py results/runs /elsewhere/runs     # different: exit code 1, a line per run
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdsbench.core import samples
from sdsbench.core import step_log as metrics
from sdsbench.core.run_folder import read_record

COMPARED = ("run_id", "status", "scores", "losses", "tokens", "parameters", "config", "tuning", "seed", "lr")


def content(folder: Path) -> dict[str, Any]:
    """The parts of a finished run that must not depend on how often it was interrupted."""
    record = read_record(folder / "record.json").model_dump(mode="json")
    found = {f"record.{key}": record[key] for key in COMPARED}
    for line in metrics.read(folder / "metrics.jsonl"):
        found[f"metrics.{line['kind']}.{line['step']}"] = {key: line[key] for key in line if key != "seconds"}
    for path in sorted(folder.glob("samples/*")):
        found[f"samples.{path.name}"] = samples.read(path)
    for path in sorted(folder.glob("adapter/*.safetensors")):
        found[f"adapter.{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield a line for each run that is missing, unfinished or different."""
    names = {path.parent.name for root in (one, other) for path in root.glob("*/record.json")}
    if not names:
        yield f"no records in {one} and {other}"
    for name in sorted(names):
        missing = [root for root in (one, other) if not (root / name / "record.json").exists()]
        if missing:
            yield f"{name}: no record in {missing[0]}"
            continue
        left, right = content(one / name), content(other / name)
        if left["record.status"] != "done":
            yield f"{name}: {left['record.status']}"
        if not any(key.startswith("metrics.train") for key in left):
            yield f"{name}: no steps"
        different = [key for key in left.keys() | right.keys() if left.get(key) != right.get(key)]
        if different:
            yield f"{name}: differ in {', '.join(sorted(different)[:8])}"


def main() -> int:
    found = list(differences(Path(sys.argv[1]), Path(sys.argv[2])))
    print("\n".join(found) if found else "bitwise equal: records, losses, answers, adapters")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
