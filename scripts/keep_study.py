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

from sdsbench.core.errors import Refused, SdsbenchError
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.states import States

REPORTED = ("record.json", "config.yaml", "metrics.jsonl", "samples")
TUNING = ("record.json",)
ENDED = ("done", "failed", "oom", "timeout")


def keep(plan: plans.Plan, runs: Path, destination: Path) -> int:
    """Copy a plan's runs to `destination`/<run id>; returns how many. Raises Refused if one has not ended."""
    kept = 0
    for now in States(plan, runs).all():  # of a tuned cell, the chosen candidates alone
        if now.state == "unneeded":
            continue
        if now.record is None or now.record.status not in ENDED:
            raise Refused(f"{plan.manifest.name}: run {now.identity} is {now.state}; finish the sweep first.")
        tuning = now.run is not None and now.run.role == "tuning"
        for name in TUNING if tuning else REPORTED:
            _copy(runs / now.record.run_id / name, destination / now.record.run_id / name)
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
