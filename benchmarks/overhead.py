"""Time that sdsbench takes around the training: planning, status, loading records, and the start of a run.

    python -m benchmarks.overhead

Every figure is the wall time of the command that a user types, in a process of its own. The records of the planned runs
are copies of one real run's record. One CSV row per figure, also on standard output.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.options import parse_options
from sdsbench.core.run_folder import read_record

SWEEP = ["method=lora,sds_lora,dora,pissa,rslora", "method.rank=4,8", "train.lr=1e-3,2e-3,4e-3,8e-3"]
CELLS = 40  # of SWEEP
RUNS = 10_000  # of the table in docs/speed.md
RUN = [
    "model=micro", "task=gsm8k", "data.source=embedded", "train.max_steps=1", "eval.limit=1", "eval.untrained=false",
    "threads=1",
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "overhead", __doc__, runs=RUNS, repetitions=(5, "of the start of a run"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = "seed=" + ",".join(map(str, range(given.runs // CELLS)))
        plan = folder / "plan"
        rows = [_row("plan", given.runs, _seconds("plan", "--folder", str(plan), *RUN, *SWEEP, seeds))]
        starts = [_start(folder / f"start{number}") for number in range(given.repetitions)]
        rows.append(_row("start: interpreter to the end of the first step", 1, statistics.median(starts)))
        _finish_all(plan, folder)
        placing = f"output_root={folder / 'runs'}"
        rows.append(_row("status", given.runs, _seconds("status", str(plan), placing)))
        rows.append(_row("load_runs", given.runs, _load(folder / "runs")))
    name = "overhead.csv" if given.runs == RUNS else f"overhead-{given.runs}.csv"
    report.write(Path(given.out) / name, rows, {}, torch.device("cpu"))
    print(report.table(rows))
    return 0


def _row(what: str, runs: int, seconds: float) -> dict[str, object]:
    return {"what": what, "runs": runs, "seconds": round(seconds, 2)}


def _seconds(*words: str) -> float:
    """Wall time of `sdsbench WORDS`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sdsbench", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _start(root: Path) -> float:
    """Seconds from the start of the process until the run has written its first step."""
    command = [sys.executable, "-m", "sdsbench", *RUN, f"output_root={root}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        while not any(path.stat().st_size for path in root.glob("*/metrics.jsonl")):
            if process.poll() is not None:
                raise SystemExit(f"the run ended before its first step: exit code {process.returncode}")
            time.sleep(0.005)
        return time.perf_counter() - started


def _finish_all(plan: Path, folder: Path) -> None:
    """Write a finished record for every planned run: the record of the first started run with another id."""
    record = read_record(next((folder / "start0").glob("*/record.json")))
    assert record is not None and record.status == "done"
    for identity in json.loads((plan / "manifest.json").read_text())["runs"]:
        renamed = record.model_copy(update={"run_id": identity})
        renamed.checksum = renamed.seal()
        (folder / "runs" / identity).mkdir(parents=True)
        (folder / "runs" / identity / "record.json").write_text(renamed.model_dump_json())


def _load(root: Path) -> float:
    """Wall time of a fresh interpreter that loads all records into a data frame."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import sdsbench; sdsbench.load_runs({str(root)!r})"], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
