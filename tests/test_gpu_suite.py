"""scripts/gpu_suite.sh: when it refuses to start, and that it resumes. `.ci/run` executes the whole dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts import gpu_suite
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
    code, said = run_suite("--dry-run", "--minutes", "0", str(tmp_path))
    assert code == 2 and "another device, code or packages" in said


def test_tests_that_ended_in_a_call_that_was_cut_off_are_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n\n"
        "def test_first() -> None:\n    raise AssertionError('it ran again')\n\n"
        "def test_second() -> None:\n    assert 1 == 2\n\n"
        "@pytest.mark.skip(reason='as on a machine without a card')\ndef test_third() -> None:\n    pass\n"
    )
    progress = tmp_path / "progress.jsonl"
    ended = {"test": "test_some.py::test_first", "outcome": "passed", "seconds": 7.0}
    cut_off = '{"test": "test_some.py::test_second", "outc'
    progress.write_text(json.dumps(ended) + "\n" + cut_off)
    found, code = gpu_suite.tests(progress, [str(tmp_path), f"--rootdir={tmp_path}"], dry_run=True)
    assert code == 1 and found["outcomes"] == {"passed": 1, "failed": 1, "skipped": 1}
    ((name, message),) = found["failures"].items()
    assert name == "test_some.py::test_second" and "assert 1 == 2" in message
    found, code = gpu_suite.tests(progress, [str(tmp_path), f"--rootdir={tmp_path}"], dry_run=True)
    assert code == 0 and len(found["failures"]) == 1, "what failed before is still told"
