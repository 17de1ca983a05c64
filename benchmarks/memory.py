"""The estimate of a training step's memory against the peak that the device counts.

    python -m benchmarks.memory --device cuda --dtype bfloat16 --model llama3.2_3b --batch 4 --length 768

The step is that of a run: the same loop, objective and optimizer, with random weights at the real shapes. The second
step is measured, since the first creates the moments. On a CPU the peak is that of the bytes of live tensors.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.contestants import Ours, Pad
from benchmarks.options import parse_options
from benchmarks.workloads import every_example_long, random_model
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.memory import Batch, allocated_bytes, training_bytes
from sdsbench.training.saved_bytes import PeakBytes


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "memory", __doc__, model=("llama3.2_3b", "a shipped architecture"), device="cuda", dtype="bfloat16",
        methods="lora,dora,lora_pro,lora_xs,sds_lora", rank=32, batch=4, length=(768, "tokens of every example"),
    )  # fmt: skip
    device = torch.device(given.device)
    rows = [
        measured(given.model, method, given.dtype, given.rank, given.batch, given.length, device)
        for method in given.methods.split(",")
    ]
    facts = {"model": given.model, "dtype": given.dtype, "rank": given.rank, "batch": given.batch,
             "length": given.length}  # fmt: skip
    report.write(Path(given.out) / f"memory-{given.model}-{given.device}-{given.dtype}.csv", rows, facts, device)
    print(report.table(rows))
    return 0


def measured(
    model: str, method: str, dtype: str, rank: int, batch: int, length: int, device: torch.device
) -> dict[str, Any]:
    """One method's row: estimated bytes, measured peak in bytes, and their ratio."""
    workload = every_example_long(batch, length)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated(device)
        contestant = _after_first_step(model, method, dtype, rank, workload, device)
        torch.cuda.reset_peak_memory_stats(device)
        contestant.step(workload.batch(1))
        peak = torch.cuda.max_memory_allocated(device) - held
    else:
        with PeakBytes() as live:
            contestant = _after_first_step(model, method, dtype, rank, workload, device)
            live.peak = live.now
            contestant.step(workload.batch(1))
        peak = live.peak
    rows = [] if method == "full_ft" else [f"method.rank={rank}", "method.targets=[all-linear]"]
    config = compose_run([f"model={model}", f"method={method}", "task=gsm8k", *rows])
    live = training_bytes(config, Batch((length,) * batch, workload.batch(0)[0].targets / length), dtype)
    assert live is not None, "shipped architectures are known"
    estimate = round(allocated_bytes(live)) if device.type == "cuda" else live
    return {"method": method, "estimate": estimate, "peak": peak, "ratio": round(estimate / peak, 4)}


def _after_first_step(model: str, method: str, dtype: str, rank: int, workload: Any, device: torch.device) -> Ours:
    """The method as a contestant that has made its first step, which creates the optimizer's moments."""
    base = random_model(model, getattr(torch, dtype), device)
    keys = {"warmup_steps": 1, "refresh": "never", "guard": 0.0} if method == "sds_lora" else {}
    contestant = Ours(method, base, Pad(), rank, workload, keys)
    contestant.step(workload.batch(0))
    return contestant


if __name__ == "__main__":
    sys.exit(main())
