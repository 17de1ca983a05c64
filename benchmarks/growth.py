"""Whether a long training slows down or grows: resident memory and processor time per token, every hundred steps.

    python -m benchmarks.growth --model smollm2_135m --dtype bfloat16 --steps 1000

Libraries cache something for every new shape, so batches have the lengths of real ones. The last row also has memory
relative to that after step 20, and time per token relative to that of the first hundred steps.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.options import parse_options
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.prepare import ready_to_train

EARLY, WINDOW = 20, 100


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "growth", __doc__, model="smollm2_135m", task="gsm8k", dtype="bfloat16",
        batch=(2, "examples a step"), steps=1000, threads=2,
        data_root=(None, "folder with real data; default: generated data"),
    )  # fmt: skip
    source = ["data.source=local", f"data.root={given.data_root}"] if given.data_root else ["data.source=embedded"]
    words = [f"model={given.model}", f"task={given.task}", "method=lora", f"dtype={given.dtype}", "device=cpu"]
    sizes = [f"train.batch_size={given.batch}", f"train.max_steps={given.steps}", f"threads={given.threads}"]
    training, state = ready_to_train(compose_run([*words, *sizes, *source]))
    training.model.train()
    rows, tokens, started = [], 0, time.process_time()
    for step in range(1, given.steps + 1):
        tokens += training.step(state).tokens
        if step == EARLY or step % WINDOW == 0 or step == given.steps:
            spent = time.process_time() - started
            rows.append({"step": step, "resident_mib": _resident() >> 20, "cpu_ms_a_token": 1000 * spent / tokens})
            print(rows[-1], file=sys.stderr)
            if step != EARLY:
                tokens, started = 0, time.process_time()
    first, last = next(row for row in rows if row["step"] != EARLY), rows[-1]
    last["memory_against_step_20"] = round(last["resident_mib"] / rows[0]["resident_mib"], 3)
    last["time_against_first_hundred"] = round(last["cpu_ms_a_token"] / first["cpu_ms_a_token"], 3)
    for row in rows:
        row["cpu_ms_a_token"] = round(row["cpu_ms_a_token"], 3)
    facts = {"model": given.model, "task": given.task, "dtype": given.dtype, "batch": given.batch}
    facts |= {"threads": given.threads, "data": "real" if given.data_root else "embedded"}
    name = f"growth-{given.model}-{given.task.replace('/', '_')}-{given.dtype}.csv"
    report.write(Path(given.out) / name, rows, facts, torch.device("cpu"))
    print(report.table(rows))
    return 0


def _resident() -> int:
    """Bytes of this process in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
