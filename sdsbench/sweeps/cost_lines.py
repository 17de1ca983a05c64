"""Print the remaining cost of a plan: time on GPUs and CPUs, the longest run, memory and disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdsbench.core.clock import about, two_digits
from sdsbench.core.console import print_wrapped
from sdsbench.sweeps.cost import CARDS, REFERENCE, Cost, Estimator, disk_bytes, fits
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.states import OVER, SlotState

ASSUMED = (
    "rows and tokens of the public sets (sdsbench/data/sizes.py); memory is what a pass over one longest row needs"
)
CALIBRATING = 200  # largest number of finished runs used to rescale the cost model


@dataclass(frozen=True)
class _Price:
    """Estimated cost of one configuration on a GPU and a CPU, and its bytes on disk; None where unknown."""

    gpu: Cost | None
    cpu: Cost | None
    disk: float | None


def print_costs(plan: Plan, slots: Sequence[SlotState], memory: bool) -> None:
    """Print the time left; with `memory`, also count memory, and measure this CPU if no finished run has used it.

    Configurations that differ only in seeds and learning rates cost the same, so each kind is estimated once.
    """
    finished = [slot for slot in slots if slot.state == "done" and slot.identity][:CALIBRATING]
    estimator = Estimator(
        ((plan.configuration(str(slot.identity), {}), slot.record) for slot in finished if slot.record is not None),
        memory,
    )
    known: dict[Any, _Price] = {}
    everything: list[_Price] = []
    left: list[_Price] = []
    beside = False
    for slot in slots:
        identity = slot.identity or _any_final(plan, slot)
        point = plan.manifest.runs[identity].point
        kind = tuple((key, value) for key, value in point.items() if not key.startswith("seed") and key != "train.lr")
        if kind not in known:
            config = plan.configuration(identity, {})
            beside = beside or config.eval.retention
            known[kind] = _Price(estimator.cost(config, "cuda"), estimator.cost(config, "cpu"), disk_bytes(config))
        everything.append(known[kind])
        left += [known[kind]] if slot.state not in OVER else []
    if not left and not memory:
        return
    _print_gpu(everything, left, memory)
    if beside:
        print_wrapped("  not in it: what eval.also and eval.text score, whose sizes are not known before they are read")
    seconds = [price.cpu.seconds for price in left if price.cpu]
    if seconds:
        corrected = any(price.cpu.measured for price in left if price.cpu)
        how = "by finished runs on CPUs" if corrected else "on this CPU, by a short step measured now; starting apart"
        print_wrapped(f"estimate {how}: {about(sum(seconds))} of work left, the longest run {about(max(seconds))}")
    sizes = [price.disk for price in left if price.disk is not None]
    if sizes:
        total = sum(sizes)
        text = f"{two_digits(total / 1e9)} GB" if total >= 1e9 else f"{two_digits(total / 1e6)} MB"
        print_wrapped(f"disk: at most {text} of records, answers and trained tensors")


def _print_gpu(everything: Sequence[_Price], left: Sequence[_Price], memory: bool) -> None:
    known = [price.gpu for price in everything if price.gpu is not None]
    if known:
        seconds = [price.gpu.seconds for price in left if price.gpu is not None]
        how = "corrected by finished runs" if any(cost.measured for cost in known) else "modelled, not measured"
        longest = f", the longest run {about(max(seconds))}" if seconds else ""
        hours = sum(seconds) / 3600
        amount = two_digits(hours) if hours >= 0.01 or not hours else "less than 0.01"
        print_wrapped(f"estimate for one {REFERENCE} ({how}): {amount} GPU-hours left{longest}")
        sizes = [cost.bytes for cost in known if cost.bytes is not None]
        if sizes:
            span = " to ".join(dict.fromkeys(f"{size / 1e9:.1f}" for size in (min(sizes), max(sizes))))
            print_wrapped(f"  {span} GB a run; assumed: {ASSUMED}")
            fitting = {name: sum(fits(size)[name] for size in sizes) for name in CARDS}
            if all(count == len(sizes) for count in fitting.values()):
                print_wrapped(f"  fits {', '.join(CARDS)}")
            else:
                for name, count in fitting.items():
                    words = "fits" if count == len(sizes) else f"{count} of {len(sizes)} runs fit"
                    print_wrapped(f"  {name}: {words}")
        if memory and len(sizes) < len(known):
            print_wrapped(
                f"  memory of {len(known) - len(sizes)} run(s) not counted: their step cannot be made without values"
            )
    if unknown := len(everything) - len(known):
        print_wrapped(f"no estimate for {unknown} run(s): the architecture is not known before download")


def _any_final(plan: Plan, slot: SlotState) -> str:
    cell = plan.manifest.cells[str(slot.slot.cell)]
    return cell.final[str(slot.slot.seed)][len(cell.grid) // 2]
