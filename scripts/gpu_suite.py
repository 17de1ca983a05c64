"""Helper of scripts/gpu_suite.sh: writes the installed packages, or the outcome of pytest, as JSON.

python scripts/gpu_suite.py packages FILE [--dry-run]
python scripts/gpu_suite.py tests FILE FOLDER ...
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
from xml.etree import ElementTree  # of a file that pytest, started here, has just written

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
TESTING = ("pytest", "hypothesis", "peft", "torchao")
NEEDED = {"torch", "transformers", "peft", "hydra-core", "pydantic", "click", "datasets", "lm-eval"} | {*TESTING[:2]}
"""Without these packages no part begins. Other missing ones are null in packages.json; tests that need them fail or are
skipped."""

_WORKERS = min(4, (os.cpu_count() or 1) // 2) if importlib.util.find_spec("xdist") else 0
"""Number of pytest processes, which share the GPU: most of a test's time is spent on the CPU."""


def main(words: list[str]) -> int:
    command, file, *rest = words
    found, code = packages("--dry-run" in rest) if command == "packages" else tests(rest)
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


def tests(places: list[str]) -> tuple[dict[str, object], int]:
    """(counts and every failure by name, pytest's exit code) of the tests marked gpu in the folders `places`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
        command += ["-n", str(_WORKERS)] if _WORKERS > 1 else []
        code = subprocess.run([*command, f"--junitxml={report}", *places], cwd=ROOT).returncode
        if not report.exists():
            return {}, code
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest wrote it just now
    outcomes, failures = Counter[str](), {}
    for case in cases:
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcomes[kinds[0] if kinds else "passed"] += 1
        if kinds and kinds[0] != "skipped":
            text = next(child for child in case if child.tag == kinds[0]).get("message") or ""
            failures[f"{case.get('classname')}::{case.get('name')}"] = text[:1000]
    seconds = round(sum(float(case.get("time") or 0) for case in cases), 1)
    return {"outcomes": dict(outcomes), "failures": failures, "seconds": seconds}, code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
