"""scripts/gpu_suite.sh: when it refuses to start, and that it resumes. `.ci/run` executes the whole dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT


def run_suite(*words: str) -> tuple[int, str]:
    """The script's exit code, and its standard output and error as one text."""
    command, variables = ["scripts/gpu_suite.sh", *words], {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_suite_is_refused_without_cuda(tmp_path: Path) -> None:
    code, printed = run_suite(str(tmp_path))
    assert code == 3 and "has no CUDA here" in printed and not list(tmp_path.iterdir())


def test_suite_skips_finished_parts_and_starts_none_without_time(tmp_path: Path) -> None:
    (tmp_path / "tests-training.json").write_text('{"failures": {}}')
    code, printed = run_suite("--dry-run", "--minutes", "0", str(tmp_path))
    assert (
        code == 75 and "tests-training.json: done before" in printed and "tests-runs.json: no time is left" in printed
    )
    facts = json.loads((tmp_path / "packages.json").read_text())
    assert facts["dry_run"] and facts["packages"]["torch"] == torch.__version__ and len(facts["code"]) == 64
    (tmp_path / "packages.json").write_text(json.dumps({**facts, "code": "0" * 64}))
    code, printed = run_suite("--dry-run", "--minutes", "0", str(tmp_path))
    assert code == 2 and "another device, code or packages" in printed
