"""Kill the workers of a plan with kill -9 at random moments, and check that no run is lost, repeated or changed.

    python scripts/fault_campaign.py FOLDER                        # 20 runs, 50 kills
    python scripts/fault_campaign.py FOLDER --runs 2 --kills 3     # the short form that CI runs

Every tenth kill hits the process of `sdsbench sweep` instead of one of its two workers; the sweep is then started again
at once. Each record is compared bitwise with that of an uninterrupted sweep of the same plan, which runs first.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from compare_runs import differences

from sdsbench.core import step_log as metrics
from sdsbench.core.run_folder import read_record

STEPS = 40
RUN = [
    "model=micro", "data.source=embedded", "threads=1", "device=cpu", "eval.limit=8", "eval.untrained=false",
    "task.max_new_tokens=20", "train.checkpoint_every=2", "data.train_limit=64", "train.batch_size=4",
    f"train.max_steps={STEPS}",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def sdsbench(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "sdsbench", *words], env=ENVIRONMENT, stdout=subprocess.DEVNULL)


def sweep(folder: Path, root: Path) -> subprocess.Popen[bytes]:
    return sdsbench("sweep", str(folder / "plan"), f"output_root={root}", "--workers", "2", "--deaths", "1000")


def finished(root: Path) -> dict[str, str]:
    """run id -> checksum of every done record. Raises if a record cannot be read, which ends the campaign."""
    records = [read_record(path) for path in root.glob("*/record.json")]
    return {record.run_id: record.checksum for record in records if record.status == "done"}


def steps_done(root: Path) -> int:
    """Number of optimizer steps in the metrics of all runs: the plan's progress, independent of the machine's speed."""
    return sum(len(path.read_bytes().splitlines()) for path in root.glob("*/metrics.jsonl"))


def campaign(folder: Path, root: Path, kills: int, runs: int, chance: random.Random) -> int:
    """Kill up to `kills` times, at random steps of the plan and random moments after them; then let the sweep end.

    Returns the number of kills made, which is lower if the plan ended before the last one.
    """
    process, made, done = sweep(folder, root), 0, {}
    moments = sorted(chance.randrange(runs * STEPS) for _ in range(kills))
    while len(done) < runs:
        while process.poll() is None and (made == len(moments) or steps_done(root) < moments[made]):
            time.sleep(0.02)
        time.sleep(chance.choice([0.0, 0.0, 0.3, 1.0, 3.0]))  # kills also hit loading, evaluation, the run's end
        now = finished(root)
        changed = [identity for identity in done if now.get(identity) != done[identity]]
        if changed:
            sys.exit(f"finished records changed or vanished: {', '.join(changed)}")
        done = now
        if process.poll() is not None and len(done) < runs:
            process = sweep(folder, root)
            continue
        workers = psutil.Process(process.pid).children() if process.poll() is None else []
        if made >= len(moments) or not workers:
            continue
        victim = process.pid if made % 10 == 9 else chance.choice(workers).pid
        os.kill(victim, signal.SIGKILL)
        made += 1
        print(
            f"kill {made}: {'the sweep' if victim == process.pid else 'a worker'}; {len(done)} of {runs} done",
            flush=True,
        )
    process.wait()
    return made


def run_twice(root: Path) -> list[str]:
    """A line for each run that was not finished by exactly one attempt, or whose metrics lack or repeat a step."""
    found = []
    for path in root.glob("*/record.json"):
        attempts = [attempt.status for attempt in read_record(path).attempts]
        steps = [line["step"] for line in metrics.read(path.parent / "metrics.jsonl") if line["kind"] == "train"]
        if attempts.count("done") != 1 or steps != list(range(1, len(steps) + 1)):
            found.append(f"{path.parent.name}: attempts {attempts}, {len(steps)} lines of steps")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=20, help="even")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    alone, plan = given.folder / "alone", given.folder / "plan"
    seeds = f"seed=range(0,{given.runs // 2})"
    if sdsbench("plan", *RUN, "method=lora,sds_lora", seeds, "--folder", str(plan)).wait():
        return 2
    if sweep(given.folder, alone).wait():
        return 2
    chance, made, done, problems = random.Random(given.seed), 0, 0, []
    rounds = 0
    while made < given.kills and not problems:  # if a plan ended early, the other kills need a new one
        root = given.folder / f"runs-{rounds}"
        made += campaign(given.folder, root, given.kills - made, given.runs, chance)
        problems = [*differences(root, alone), *run_twice(root)]
        done, rounds = done + len(finished(root)), rounds + 1
    print(
        f"{made} kills, {done} of {rounds * given.runs} runs done; " + ("; ".join(problems) or "all bitwise equal"),
        flush=True,
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
