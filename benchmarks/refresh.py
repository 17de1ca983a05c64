"""Time of a refresh of SDS-LoRA's bases, relative to an optimizer step of smollm2_135m at 1024 tokens.

    python -m benchmarks.refresh --threads 1 --dtype float32

Random weights in the real shapes, since speed does not depend on the values. Two ways to compute the bases are
compared: "before", Householder QR of one layer after the other, and "after", the batched Cholesky QR of
methods/linear_algebra.py, which training uses. Medians of interleaved repetitions; one CSV row per variant on standard
output.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.options import parse_options
from sdsbench.methods.attach import attach
from sdsbench.methods.linear_algebra import orthonormal_columns, thin_qr
from sdsbench.methods.sds_lora import SDSLoRA, SDSLoRAConfig, refresh_due
from sdsbench.models.architecture import shipped

TOTAL_STEPS = 1000  # length of the run over whose steps the cost of refreshes is spread


def main() -> None:
    arguments = parse_options(
        None, "refresh", __doc__, out=None, rank=32, dtype=["float32", "bfloat16"], device="cpu", threads=1,
        repetitions=5,
    )  # fmt: skip
    torch.set_num_threads(arguments.threads)

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shipped("smollm2_135m")))
    model = model.to(arguments.device, getattr(torch, arguments.dtype)).train()
    method = SDSLoRA(SDSLoRAConfig(rank=arguments.rank))
    layers = attach(model, method, 0)
    for layer in layers.values():
        torch.nn.init.normal_(layer.B, std=0.02)
    with torch.no_grad():
        method._split(layers)
    method.has_bases = True

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    ids = torch.randint(0, 49152, (4, 256), device=arguments.device)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def factors() -> list[torch.Tensor]:
        return [x for layer in layers.values() for x in (layer.A.detach().t(), layer.B.detach())]

    def householder_one_by_one() -> None:
        for x in factors():
            thin_qr(x.contiguous())

    def orthonormal_batched() -> None:
        orthonormal_columns(factors())

    def whole_refresh() -> None:
        with torch.no_grad():
            method._refresh(layers)

    variants = {
        "step": step,
        "bases, before: Householder one by one": householder_one_by_one,
        "bases, after: batched Cholesky with certificate": orthonormal_batched,
        "refresh, after: guard, bases and reported jumps": whole_refresh,
    }
    seconds = _interleaved(variants, arguments.repetitions, arguments.device)
    _report(seconds, arguments)


def _interleaved(variants: dict[str, Callable[[], None]], repetitions: int, device: str) -> dict[str, float]:
    """Median seconds of each variant over `repetitions` rounds that run all variants; one untimed round comes first."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repetitions + 1):
        for name, work in variants.items():
            _wait(device)
            start = time.perf_counter()
            work()
            _wait(device)
            measured[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in measured.items()}


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _report(seconds: dict[str, float], arguments: argparse.Namespace) -> None:
    due = sum(refresh_due("author", step, TOTAL_STEPS, 10, 5) for step in range(1, TOTAL_STEPS + 1)) / TOTAL_STEPS
    writer = csv.writer(sys.stdout)
    writer.writerow(["variant", "device", "threads", "dtype", "rank", "torch", "seconds", "share_of_step_amortised"])
    for name, value in seconds.items():
        share = 1.0 if name == "step" else value * due / seconds["step"]
        facts = [arguments.device, arguments.threads, arguments.dtype, arguments.rank, torch.__version__]
        writer.writerow([name, *facts, f"{value:.4f}", f"{share:.4f}"])


if __name__ == "__main__":
    main()
