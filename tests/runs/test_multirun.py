"""Hydra's multirun (-m) runs every combination, and a failing run does not stop the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FAST = [
    "model=micro", "data.source=embedded", "data.train_limit=32", "train.max_steps=4", "eval.limit=2", "threads=1",
    "eval.untrained=false", "task.max_new_tokens=4", "train.clip_norm=null", "train.batch_size=2",
]  # fmt: skip


def test_multirun_runs_every_combination_and_continues_after_a_failure(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sdsbench", "-m", *FAST, "method=full_ft,lora", "train.lr=1e-3,1e30"]
    done = subprocess.run(
        [*command, f"output_root={tmp_path / 'runs'}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "not finite" in done.stderr and "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], (
        "no other file in the folder where the command was started"
    )


def test_multirun_of_an_aggregate_task_runs_its_members(tmp_path: Path) -> None:
    """Every job of the multirun is two runs and their mean."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    words = ["model=vit_micro", "method=lora", "task=vtab", "task.members=[vtab/dtd,vtab/eurosat]", "seed=0,1",
             "data.source=embedded", "data.train_limit=32", "train.max_steps=2", "eval.limit=10", "threads=1",
             "eval.untrained=false"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "sdsbench", "-m", *words, f"output_root={tmp_path / 'runs'}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 4
    assert done.stdout.count("mean vtab ") == 2
