"""scripts/gpu_suite.sh: what it refuses, and that it goes on where it stopped. `.ci/run` makes the whole dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT


def suite(*words: str) -> tuple[int, str]:
    command, variables = ["scripts/gpu_suite.sh", *words], {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_refused_without_cuda(tmp_path: Path) -> None:
    code, said = suite(str(tmp_path))
    assert code == 3 and "has no CUDA here" in said and not list(tmp_path.iterdir())


def test_a_part_that_is_there_is_done_and_no_part_begins_without_time(tmp_path: Path) -> None:
    (tmp_path / "tests-training.json").write_text('{"failures": {}}')
    code, said = suite("--dry-run", "--minutes", "0", str(tmp_path))
    assert code == 75 and "tests-training.json: done before" in said and "tests-runs.json: no time is left" in said
    facts = json.loads((tmp_path / "packages.json").read_text())
    assert facts["dry_run"] and facts["packages"]["torch"] == torch.__version__ and len(facts["code"]) == 64
    (tmp_path / "packages.json").write_text(json.dumps({**facts, "code": "0" * 64}))
    code, said = suite("--dry-run", "--minutes", "0", str(tmp_path))
    assert code == 2 and "another device, code or packages" in said
