"""`sdsbench replay RUN...`: send runs' metrics.jsonl to Weights & Biases, as the runs themselves would have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.runs.tracking.tracker_config import TrackerConfig
from sdsbench.runs.tracking.trackers import replay


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench replay", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders (results/runs/<run id>)")
    parser.add_argument("--project", default="sdsbench")
    parser.add_argument("--mode", choices=("offline", "online"), default="offline")
    given = parser.parse_args(arguments)
    missing = [str(run) for run in given.runs if not (run / "metrics.jsonl").is_file()]
    if missing:
        raise ConfigError([Problem("runs", name, "a run folder with metrics.jsonl") for name in missing])
    for run in given.runs:
        steps = replay(TrackerConfig("wandb", given.project, given.mode), run)
        print(f"{run.name}: {steps} steps")
    return 0
