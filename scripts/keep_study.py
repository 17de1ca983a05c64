"""Copies what a finished plan's tables need from results/runs into a folder small enough to commit.

    python scripts/keep_study.py results/study study study_glue

Every run keeps its record; runs that tables report keep their configuration, metrics and answers too. Adapters, locks
and checkpoints stay behind. Refuses a plan with unfinished runs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from sdsbench.errors import Refused, SdsbenchError
from sdsbench.records.run_folder import read_record
from sdsbench.sweeps import plan as plans

REPORTED = ("record.json", "config.yaml", "metrics.jsonl", "samples")
TUNING = ("record.json",)
ENDED = ("done", "failed", "oom", "timeout")


def keep(plan: plans.Plan, runs: Path, destination: Path) -> int:
    """Copy a plan's runs to `destination`/<run id>; returns how many. Raises Refused if one has not ended."""
    kept = 0
    for identity, planned in plan.manifest.runs.items():
        source = runs / identity
        if not (source / "record.json").is_file():
            if planned.role == "final":  # a candidate that was not chosen
                continue
            raise Refused(f"{plan.manifest.name}: run {identity} has no record; finish the sweep first.")
        record = read_record(source / "record.json")
        if record.status not in ENDED:
            raise Refused(f"{plan.manifest.name}: run {identity} is {record.status}; finish the sweep first.")
        for name in TUNING if planned.role == "tuning" else REPORTED:
            _copy(source / name, destination / identity / name)
        kept += 1
    return kept


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        shutil.copy2(source, target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("destination", type=Path)
    parser.add_argument("plans", nargs="+")
    parser.add_argument("--runs", type=Path, default=Path("results/runs"))
    given = parser.parse_args()
    try:
        for name in given.plans:
            plan = plans.read(plans.find(name))
            print(f"{name}: {keep(plan, given.runs, given.destination / 'runs')} runs kept")
    except SdsbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
