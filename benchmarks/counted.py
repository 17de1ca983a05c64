"""Count what one step needs on a GPU, without a GPU: real shapes on the meta device, with CUDA's attention kernels.

    python -m benchmarks.counted --model llama3.2_3b --batch 4 --max-length 768 --rank 32

Every contestant does forward and backward passes on the same batches of random lengths, as in benchmarks.steps. Counted
are bytes (held between steps, and the peak of live tensors), operators that launch a kernel, and operations in matrix
products. Meta tensors have no values, so no time can be measured, and the rounding of an allocator is not included.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report
from benchmarks.contestants import REFERENCES, Contestant, Ours, Pad, builder
from benchmarks.options import parse_options
from benchmarks.workloads import Workload, drawn, every_example_long, random_model
from sdsbench.training.meta_device import META, as_on_cuda
from sdsbench.training.saved_bytes import PeakBytes

CONTESTANTS = "lora,dora,sds_lora,lora_pro,lora_xs,peft_lora,peft_dora"
aten = torch.ops.aten
NO_KERNEL = (aten._unsafe_view, aten.promote_types, aten.empty, aten.empty_like, aten.new_empty)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "counted", __doc__, model=("llama3.2_3b", "a shipped architecture"), rank=32,
        batch=(4, "examples in a step"), max_length=768,
        full_length=(False, "every example has the greatest length: no padding"), batches=8, contestants=CONTESTANTS,
    )  # fmt: skip
    base = random_model(given.model, torch.bfloat16, META)
    if given.full_length:
        workload = every_example_long(given.batch, given.max_length)
    else:
        workload = drawn(base.config.vocab_size, given.batch, given.max_length)
    rows: dict[str, dict[str, Any]] = {}
    with kernels_of_cuda(padded=not given.full_length):
        for name in given.contestants.split(","):
            contestant = builder(name, base, Pad(), given.rank, workload)()
            rows[name] = {"contestant": name, **count(contestant, workload, given.batches)}
            print(f"{name}: {rows[name]}", file=sys.stderr)
    for row in rows.values():
        for key in ("peak_bytes", "product_operations", "operators"):
            report.add_ratio(row, rows, key, REFERENCES)
    facts = {
        "model": given.model, "workload": workload.name, "batch": given.batch, "rank": given.rank, "dtype": "bfloat16",
        "tensors": "meta, kernels of CUDA",
        "padding_share_of_peft": round(workload.padding_share(given.batches), 4), "batches": given.batches,
    }  # fmt: skip
    length = f"-{given.max_length}" if given.full_length else ""
    path = Path(given.out) / f"counted-{given.model}-bfloat16-r{given.rank}-b{given.batch}{length}.csv"
    report.write(path, list(rows.values()), facts, META)
    print(report.table(list(rows.values())))
    return 0


@contextmanager
def kernels_of_cuda(padded: bool = True) -> Iterator[None]:
    """Choose kernels as on CUDA. If `padded`, transformers' batches have a mask, and attention uses the kernel that
    reads it; transformers would decide this from values, which meta tensors do not have."""
    ignore = mock.patch("transformers.masking_utils._ignore_causal_mask_sdpa", lambda *_, **__: not padded)
    with ignore, as_on_cuda():
        yield


class _Operators(TorchDispatchMode):
    """Counts operators that compute; on CUDA each launches at least one kernel."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view and function.overloadpacket not in NO_KERNEL
        return function(*args, **(kwargs or {}))


def count(contestant: Contestant, workload: Workload, batches: int) -> dict[str, Any]:
    """The largest counts of bytes and operators over `batches` batches; operations are summed over them."""
    if isinstance(contestant, Ours):
        contestant.method.skip_warmup()
    held = _held_bytes(contestant)
    peak = operators = operations = 0
    for number in range(batches):
        batch = workload.batch(number)
        with PeakBytes() as live:
            contestant.loss(batch).backward()
        peak = max(peak, live.peak)
        _free_gradients(contestant)
        with _Operators() as counted, FlopCounterMode(display=False) as products:
            contestant.loss(batch).backward()
        operators = max(operators, counted.count)
        found = products.get_flop_counts()["Global"]
        operations += sum(count for operator, count in found.items() if "attention" not in str(operator))
        _free_gradients(contestant)
    return {
        "held_bytes": held, "passes_bytes": peak, "peak_bytes": held + peak, "operators": operators,
        "product_operations": operations,
    }  # fmt: skip


def _held_bytes(contestant: Contestant) -> int:
    """Bytes held between steps: weights, adapters, AdamW's two fp32 moments, and the flat gradient if there is one."""
    tensors: list[Tensor] = [*contestant.model.parameters(), *contestant.model.buffers()]
    trained = sum(p.numel() for p in contestant.model.parameters() if p.requires_grad)
    if isinstance(contestant, Ours):
        flats = contestant.state.optimizer.flat  # type: ignore[union-attr]
        tensors += [tensor for flat in flats for tensor in (flat.data, flat.grad) if tensor is not None]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values()) + 2 * 4 * trained


def _free_gradients(contestant: Contestant) -> None:
    """Free the gradients as peft's loop does before every step; our loop keeps one flat buffer."""
    if not isinstance(contestant, Ours):
        for parameter in contestant.model.parameters():
            parameter.grad = None


if __name__ == "__main__":
    sys.exit(main())
