"""Stand-ins for SLURM's commands, and a plan of eight runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdsbench.sweeps.plan import Plan
from tests.sweeps.tools import tiny_plan

STAND_INS = {
    "sbatch": 'echo "$@" >> "$0.log"; echo 77',
    "squeue": 'echo "$@" >> "$0.log"; cat "$0.answer" 2>/dev/null || true',
    "scontrol": "if [ $1 = show ]; then echo 'MaxArraySize            = 3'; else echo $@ >> $0.log; fi",
    "sleep": "",
    "scancel": 'echo "$@" >> "$0.log"',
    "sacct": "exit 1",
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for SLURM's commands, first in PATH; they log their arguments to NAME.log."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A plan of eight runs that differ in their seed."""
    return tiny_plan(tmp_path, "seed=range(0,8)")
