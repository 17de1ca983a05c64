"""Optimizer steps of every method, and of peft in a plain padded AdamW loop, interleaved on the same batches.

    python -m benchmarks.steps --model smollm2_135m --rank 32 --steps 5
    python -m benchmarks.steps --model llama3.2_3b --device cuda --dtype bfloat16 --batch 4 --max-length 768 --rank 32

One round gives every contestant the same batch, one after the other. Ratios are taken round by round, so that a machine
that slows down affects both sides. Writes benchmarks/results/steps-*.csv (one row per contestant) and a plot beside it.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.contestants import METHODS, PEFT, REFERENCES, Contestant, Pad, builder
from benchmarks.options import parse_options
from benchmarks.workloads import Workload, drawn, gsm8k, loaded_model, random_model, synchronize
from sdsbench.training.saved_bytes import PeakBytes, saved_bytes

NEW_TOKENS = 16


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "steps", __doc__, model=("smollm2_135m", "micro, smollm2_135m, or a shipped architecture"),
        device="cpu", dtype="float32", threads=(2, "CPU threads"), rank=32, batch=(8, "examples in a step"),
        max_length=512, data_root=(None, "folder with the real GSM8K; default: generated word problems"),
        steps=(5, "timed steps; 0: only exact counts"), warmup=1, counts=(True, "memory and generation"),
        plot=(True, "a plot beside the CSV"), generate=(0, "prompts for generation speed; 0: not measured"),
        contestants=",".join((*METHODS, *PEFT)),
    )  # fmt: skip
    torch.set_num_threads(given.threads)
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    base, tokenizer, workload = _subject(given, device, dtype)
    names = given.contestants.split(",")
    rows: dict[str, dict[str, Any]] = {name: {"contestant": name} for name in names}
    built: dict[str, Contestant] = {}
    for name in names:
        contestant = builder(name, base, tokenizer, given.rank, workload)()
        if given.counts:
            rows[name] |= _measure_alone(contestant, workload, device, given.generate)
        if given.steps:
            built[name] = contestant
        print(f"{name}: {rows[name]}", file=sys.stderr)
        del contestant
        gc.collect()
    if given.steps:
        seconds = _interleaved(built, workload, given.warmup, given.steps, device)
        tokens = [sum(e.length for e in workload.batch(n)) for n in range(given.warmup, given.warmup + given.steps)]
        report.add_speeds(rows, seconds, tokens, REFERENCES)
    for row in rows.values() if given.counts else ():
        report.add_ratio(row, rows, "saved_bytes", REFERENCES)
        report.add_ratio(row, rows, "peak_bytes", REFERENCES)
    batches = max(1, given.steps)
    facts = {
        "model": given.model, "workload": workload.name, "batch": given.batch, "rank": given.rank,
        "dtype": given.dtype, "padding_share_of_peft": round(workload.padding_share(batches), 4), "steps": given.steps,
        "threads": given.threads,
    }  # fmt: skip
    path = Path(given.out) / f"steps-{given.model}-{given.device}-{given.dtype}-r{given.rank}-b{given.batch}.csv"
    report.write(path, list(rows.values()), facts, device)
    if given.steps and given.counts and given.plot:
        report.plot_steps(path.with_suffix(".png"), list(rows.values()), facts, device)
    print(report.table(list(rows.values())))
    return 0


def _subject(given: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any, Workload]:
    """(model, tokenizer, workload): pretrained weights and GSM8K if the weights are available, else random ones."""
    if given.model in ("micro", "smollm2_135m") and device.type == "cpu":
        model, tokenizer = loaded_model(given.model, dtype)
        return model, tokenizer, gsm8k(given.model, tokenizer, given.batch, given.max_length, given.data_root)
    model = random_model(given.model, dtype, device)
    return model, Pad(), drawn(model.config.vocab_size, given.batch, given.max_length)


def _measure_alone(contestant: Contestant, workload: Workload, device: torch.device, prompts: int) -> dict[str, Any]:
    """Measurements of one contestant alone: saved bytes, peak bytes of a step, start-up seconds, generation speed."""
    batch = workload.batch(0)
    contestant.step(batch)  # creates optimizer state; ends SDS-LoRA's warm-up
    saved = saved_bytes(contestant.model, lambda: contestant.loss(batch))
    found: dict[str, Any] = {"init_seconds": round(contestant.init_seconds, 3), "saved_bytes": saved}
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        contestant.step(batch)
        found["peak_bytes"] = torch.cuda.max_memory_allocated() - held
        found["peak_allocated"] = torch.cuda.max_memory_allocated()
        found["peak_reserved"] = torch.cuda.max_memory_reserved()
    else:
        with PeakBytes() as peak:
            contestant.step(batch)
        found["peak_bytes"] = peak.peak
    if prompts:
        heads = [example.ids[: max(1, example.first_target)] for example in workload.examples[:prompts]]
        started = time.perf_counter()
        made = contestant.generate(heads, NEW_TOKENS)
        synchronize(device)
        found["generated_tokens_per_second"] = round(made / (time.perf_counter() - started), 1)
    return found


def _interleaved(
    built: dict[str, Contestant], workload: Workload, warmup: int, steps: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every timed step, by contestant. In a round all make a step on one batch; their order rotates."""
    seconds: dict[str, list[float]] = {name: [] for name in built}
    names = list(built)
    for number in range(warmup + steps):
        batch = workload.batch(number)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            synchronize(device)
            started = time.perf_counter()
            built[name].step(batch)
            synchronize(device)
            if number >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
