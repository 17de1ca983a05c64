"""Several runs at once on one machine, each in a process of its own: their summed tokens/s against one run alone.

    python -m benchmarks.beside --model smollm2_135m --runs 2

Each round measures one run alone, then all runs at once, with each of `--spins`: the number of times that a waiting
OpenMP thread spins before it sleeps (sdsbench/core/processor.py). With 0 it sleeps at once; `active` stands for
OMP_WAIT_POLICY=ACTIVE, with which it hardly ever sleeps.
Every process may use every core. The ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.options import parse_options
from sdsbench.core.processor import DEFAULTS, usable_cores

WORK = """
import sys, time
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.prepare import ready_to_train
training, state = ready_to_train(compose_run(sys.argv[3:]))
training.model.train()
training.step(state)
print("ready", flush=True)
sys.stdin.readline()
end, tokens, started = time.time() + float(sys.argv[1]), 0, time.time()
while time.time() < end:
    tokens += training.step(state).tokens
print(tokens / (time.time() - started), flush=True)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "beside", __doc__, model="smollm2_135m", runs=(2, "at once"), seconds=(30.0, "of a round"),
        rounds=3, threads=(0, "of each run; 0: as many as there are cores"),
        spins=(DEFAULTS["GOMP_SPINCOUNT"], "of a waiting thread; several with commas, such as 500,0,active"),
    )  # fmt: skip
    spins = given.spins.split(",")
    alone: dict[str, list[float]] = {count: [] for count in spins}
    together: dict[str, list[float]] = {count: [] for count in spins}
    for _ in range(given.rounds):
        for count in spins:
            alone[count] += _speeds(1, count, given)
            together[count].append(sum(_speeds(given.runs, count, given)))
    rows = [_row(count, alone[count], together[count]) for count in spins]
    facts = {
        "model": given.model, "runs": given.runs, "threads": given.threads or usable_cores(), "cores": usable_cores(),
        "rounds": given.rounds, "load": _load(),
    }  # fmt: skip
    report.write(Path(given.out) / f"beside-{given.model}-{given.runs}.csv", rows, facts, torch.device("cpu"))
    print(report.table(rows))
    return 0


def _row(spins: str, alone: Sequence[float], together: Sequence[float]) -> dict[str, Any]:
    """A line of the table: medians over rounds, tokens/s."""
    return {
        "spins": spins,
        "alone_tokens_per_second": round(statistics.median(alone)),
        "together_tokens_per_second": round(statistics.median(together)),
        "together_against_alone": round(
            statistics.median(many / one for many, one in zip(together, alone, strict=True)), 2
        ),
    }


def _speeds(runs: int, spins: str, given: argparse.Namespace) -> list[float]:
    """tokens/s of each of `runs` processes that train at the same time; they start together once all are ready."""
    words = [f"model={given.model}", "method=lora", "data.source=embedded", "train.max_steps=100000"]
    words += ["device=cpu", f"threads={given.threads}"]
    command = [sys.executable, "-c", WORK, str(given.seconds), "--", *words]
    environment = os.environ | {"GOMP_SPINCOUNT": spins}
    if spins == "active":
        environment.pop("GOMP_SPINCOUNT")
        environment["OMP_WAIT_POLICY"] = "ACTIVE"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(runs)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in processes]


def _load() -> str:
    """The machine's load averages, which show other work."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
