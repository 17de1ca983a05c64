"""One optimizer step split into passes of different sizes, and the share of the card's speed that each reaches.

    python -m benchmarks.passes --model mistral_7b --device cuda --dtype bfloat16 --examples 32 --length 512

Published protocols often state batch 1 with 32 steps of accumulation. The split does not change the effective batch, so
sdsbench chooses it (train.micro_tokens); this benchmark measures how much that saves. Every round runs all splits one
after the other, and ratios are taken round by round.

`share_of_peak` (model FLOP utilisation) is the rate of the operations that a training step of LoRA must make, relative
to the card's published dense bf16 rate. Counted are, without recomputation: 4 operations for each weight of a linear
layer and token (frozen weights have no gradient), 6 for each trained parameter and token, the output layer at target
positions only, and causal attention.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks import report
from benchmarks.contestants import Ours, Pad
from benchmarks.options import parse_options
from benchmarks.workloads import Workload, every_example_long, random_model, synchronize

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "A6000": 155e12}  # dense bf16 operations a second


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "passes", __doc__, model=("llama3.2_3b", "a shipped architecture; its weights are random"),
        method="lora", device="cuda", dtype="bfloat16", rank=32, examples=(32, "examples of an optimizer step"),
        length=(512, "tokens of every example"), cuts=("1,4,16", "examples in a pass; the first is the reference"),
        rounds=5,
    )  # fmt: skip
    device = torch.device(given.device)
    base = random_model(given.model, getattr(torch, given.dtype), device)
    workload = every_example_long(given.examples, given.length)
    run = Ours(given.method, base, Pad(), given.rank, workload, {})
    cuts = [int(cut) for cut in given.cuts.split(",")]
    seconds = _measured(run, workload, cuts, given.rounds, device)
    needed = operations(run, workload)
    peak = _peak(device)
    rows = []
    for cut, taken in seconds.items():
        row = {"examples_a_pass": cut, "tokens_a_pass": cut * given.length, "passes": -(-given.examples // cut)}
        if not taken:
            rows.append(row | {"step_seconds": "does not fit"})
            continue
        ratio = statistics.median(first / own for first, own in zip(seconds[cuts[0]], taken, strict=True))
        row |= {"step_seconds": round(statistics.median(taken), 4), "speed_against_first": round(ratio, 3)}
        rate = needed / statistics.median(taken)
        row |= {"teraflops": round(rate / 1e12, 3), "share_of_peak": round(rate / peak, 4) if peak else ""}
        rows.append(row)
    facts = {
        "model": given.model, "method": given.method, "rank": given.rank, "examples": given.examples,
        "length": given.length, "dtype": given.dtype, "rounds": given.rounds,
    }  # fmt: skip
    report.write(Path(given.out) / f"passes-{given.model}-{given.device}-{given.dtype}.csv", rows, facts, device)
    print(report.table(rows))
    return 0


def _measured(
    run: Ours, workload: Workload, cuts: Sequence[int], rounds: int, device: torch.device
) -> dict[int, list[float]]:
    """Seconds of a step for each cut; one untimed round comes first.

    No seconds for a cut whose passes do not fit into memory: training halves such passes (`TrainState.micro_limit`).
    """
    seconds: dict[int, list[float]] = {cut: [] for cut in cuts}
    fitting = set(cuts)
    for number in range(1 + rounds):
        for cut in [cut for cut in cuts if cut in fitting]:
            training = dataclasses.replace(run.training, micro_tokens=cut * workload.examples[0].length)
            synchronize(device)
            started = time.perf_counter()
            training.step_on(run.state, workload.batch(number))
            synchronize(device)
            if run.state.micro_limit is not None:
                run.state.micro_limit = None
                fitting.discard(cut)
                seconds[cut].clear()
            elif number:
                seconds[cut].append(time.perf_counter() - started)
    return seconds


def operations(run: Ours, workload: Workload) -> float:
    """Number of operations that one step must make, as the module's docstring defines it."""
    batch, facts = workload.batch(0), run.model.config
    tokens, targets = sum(example.length for example in batch), sum(example.targets for example in batch)
    head = run.model.get_output_embeddings()
    linear = sum(layer.weight.numel() for layer in run.state.layers.values())
    linear += sum(m.weight.numel() for m in run.model.modules() if isinstance(m, nn.Linear) and m is not head)
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    head_size = getattr(facts, "head_dim", None) or facts.hidden_size // facts.num_attention_heads
    width = facts.num_attention_heads * head_size
    attention = 6 * facts.num_hidden_layers * width * sum(example.length**2 for example in batch)
    return tokens * (4 * linear + 6 * trained) + 4 * targets * head.weight.numel() + attention


def _peak(device: torch.device) -> float | None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((rate for card, rate in PEAK.items() if card in name), None)


if __name__ == "__main__":
    sys.exit(main())
