"""Helper of scripts/gpu_suite.sh: writes the installed packages, or the outcome of pytest, as JSON.

python -m scripts.gpu_suite packages FILE [--dry-run]
python -m scripts.gpu_suite tests FILE PROGRESS FOLDER ... [--dry-run]
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

from packaging.requirements import Requirement

from scripts import gpu_progress

ROOT = Path(__file__).parent.parent
TESTING = ("pytest", "hypothesis", "peft", "torchao")
NEEDED = {"torch", "transformers", "peft", "hydra-core", "pydantic", "click", "datasets", "lm-eval"} | {*TESTING[:2]}
"""Without these packages no part begins. Other missing ones are null in packages.json; tests that need them fail or are
skipped."""

NO_TESTS_LEFT = 5  # pytest's exit code where every test was deselected

_WORKERS = min(4, (os.cpu_count() or 1) // 2) if importlib.util.find_spec("xdist") else 0
"""Number of pytest processes, which share the GPU: most of a test's time is spent on the CPU."""


def main(words: list[str]) -> int:
    command, file, *rest = words
    dry_run = "--dry-run" in rest
    if command == "packages":
        found, code = packages(dry_run)
    else:
        progress, *places = (word for word in rest if word != "--dry-run")
        found, code = tests(Path(progress), places, dry_run)
    if found:
        Path(file).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return code


def packages(dry_run: bool) -> tuple[dict[str, object], int]:
    """(device, versions and a hash of the code, 0), or ({}, 3) if CUDA or an indispensable package is missing."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = sorted({Requirement(line).name for line in needed} | set(TESTING))
    versions = {name: _version(name) for name in names}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        print(f"missing: {', '.join(missing)}; scripts/gpu_wheels.sh collects wheels, --wheels FOLDER installs them")
    if NEEDED & set(missing):
        return {}, 3
    import torch

    from sdsbench.core.source_hash import hash_of

    sources = [path for part in ("sdsbench", "benchmarks", "tests") for path in sorted((ROOT / part).rglob("*.py"))]
    made_from = {"code": hash_of({str(path.relative_to(ROOT)): path for path in sources}), "packages": versions}
    if dry_run:
        return {"device": "cpu", "dry_run": True, **made_from}, 0
    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} has no CUDA here: this suite is for a GPU (--dry-run: tiny sizes on a CPU)")
        return {}, 3
    card = torch.cuda.get_device_properties(0)
    facts = {"device": card.name, "bytes": card.total_memory, "capability": f"{card.major}.{card.minor}"}
    return {**facts, "cuda": torch.version.cuda, **made_from}, 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def tests(progress: Path, places: list[str], dry_run: bool) -> tuple[dict[str, object], int]:
    """(counts and failures of the tests that are marked gpu below `places`, pytest's exit code).

    Tests whose end is in `progress` are not repeated. A dry run takes the same tests' variants for the CPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder) / "done"
        whole, _, _cut_off = (progress.read_text() if progress.exists() else "").rpartition("\n")
        for path in (progress, done):
            path.write_text(whole + "\n" if whole else "")
        command = [sys.executable, "-m", "pytest", "-m", "not gpu and not slow" if dry_run else "gpu"]
        command += ["-p", "scripts.gpu_progress", "-p", "no:cacheprovider", "--tb=short"]
        command += ["-n", str(_WORKERS)] if _WORKERS > 1 else []
        variables = {**os.environ, gpu_progress.PROGRESS: str(progress), gpu_progress.DONE: str(done)}
        code = subprocess.run([*command, *places], cwd=ROOT, env=variables).returncode
    if code == NO_TESTS_LEFT:
        code = 0
    if code not in (0, 1):  # pytest itself failed, or was stopped
        return {}, code
    ends = gpu_progress.lines_of(progress)
    failures = {end["test"]: end["message"] for end in ends if end["outcome"] == "failed"}
    seconds = round(sum(end["seconds"] for end in ends), 1)
    return {"outcomes": Counter(end["outcome"] for end in ends), "failures": failures, "seconds": seconds}, code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
