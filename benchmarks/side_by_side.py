"""Speed of several runs trained side by side in one process, against the same runs one after the other, interleaved.

python -m benchmarks.side_by_side --model micro --runs 8
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.contestants import Ours, Pad
from benchmarks.options import parse_options
from benchmarks.workloads import drawn, gsm8k, loaded_model, random_model, synchronize
from sdsbench.training.side_by_side import Member, SideBySide


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "side_by_side", __doc__, model="micro", method="lora", device="cpu", dtype="float32", runs=8,
        rank=8, batch=8, rounds=5, threads=2,
    )  # fmt: skip
    torch.set_num_threads(given.threads)
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    if device.type == "cpu" and given.model in ("micro", "smollm2_135m"):
        base, tokenizer = loaded_model(given.model, dtype)
        workload = gsm8k(given.model, tokenizer, given.batch, 512, None)
    else:
        base, tokenizer = random_model(given.model, dtype, device), Pad()
        workload = drawn(base.config.vocab_size, given.batch, 512)

    def runs() -> list[Any]:
        return [Ours(given.method, base, tokenizer, given.rank, workload, {}) for _ in range(given.runs)]

    alone = runs()
    group = SideBySide(base, [Member(run.training, run.state) for run in runs()])
    ratios, together, apart = [], [], []
    for number in range(1 + given.rounds):
        started = time.perf_counter()
        for run in alone:
            run.training.step(run.state)
        synchronize(device)
        middle = time.perf_counter()
        group.step()
        synchronize(device)
        ended = time.perf_counter()
        if number:
            apart.append(middle - started)
            together.append(ended - middle)
            ratios.append(apart[-1] / together[-1])
    row = {
        "runs": given.runs, "one_after_the_other_seconds": round(statistics.median(apart), 4),
        "side_by_side_seconds": round(statistics.median(together), 4), "ratio": round(statistics.median(ratios), 3),
    }  # fmt: skip
    facts = {
        "model": given.model, "method": given.method, "rank": given.rank, "batch": given.batch, "dtype": given.dtype,
        "threads": given.threads, "rounds": given.rounds,
    }  # fmt: skip
    path = Path(given.out) / f"side-by-side-{given.model}-{given.device}-{given.runs}-t{given.threads}.csv"
    report.write(path, [row], facts, device)
    print(report.table([row]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
