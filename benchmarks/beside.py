"""Several runs at once on one machine, each in a process of its own: their summed tokens/s against one run alone.

    python -m benchmarks.beside --model smollm2_135m --runs 2

Each round measures one run alone, then all runs at once; every process may use every core. The ratio is the median over
rounds. `--wait-policy ACTIVE` measures OpenMP's default, in which waiting threads spin instead of sleeping.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.options import parse_options
from sdsbench.core.processor import usable_cores

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
        rounds=3, wait_policy=["PASSIVE", "ACTIVE"],
    )  # fmt: skip
    alone, together = [], []
    for _ in range(given.rounds):
        alone += _speeds(1, given)
        together.append(sum(_speeds(given.runs, given)))
    ratio = statistics.median(many / one for many, one in zip(together, alone, strict=True))
    row = {
        "runs": given.runs, "wait_policy": given.wait_policy,
        "alone_tokens_per_second": round(statistics.median(alone)),
        "together_tokens_per_second": round(statistics.median(together)), "together_against_alone": round(ratio, 2),
    }  # fmt: skip
    facts = {"model": given.model, "cores": usable_cores(), "rounds": given.rounds, "load": _load()}
    name = f"beside-{given.model}-{given.runs}-{given.wait_policy.lower()}.csv"
    report.write(Path(given.out) / name, [row], facts, torch.device("cpu"))
    print(report.table([row]))
    return 0


def _speeds(runs: int, given: argparse.Namespace) -> list[float]:
    """tokens/s of each of `runs` processes that train at the same time; they start together once all are ready."""
    words = [f"model={given.model}", "method=lora", "data.source=embedded", "train.max_steps=100000", "device=cpu"]
    command = [sys.executable, "-c", WORK, str(given.seconds), "--", *words]
    environment = {**os.environ, "OMP_WAIT_POLICY": given.wait_policy}
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
