"""Helpers that read what a submission wrote."""

from __future__ import annotations

from pathlib import Path

from sdsbench.sweeps.plan import Plan


def sbatch_lines(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def submission_folder(plan: Plan) -> Path:
    return plan.folder / "submissions" / "001"
