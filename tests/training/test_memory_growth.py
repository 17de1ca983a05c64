"""Memory that libraries cache does not grow with the training steps, for any family of models.

Passes have different numbers of tokens, and oneDNN and torch cache prepared code for each; the package bounds these
caches (core/processor.py). The C library reports the allocated bytes, which unlike resident memory do not depend on
the fragmentation of the heap.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

EARLY, LATE = 5, 60
TRAIN = """
import ctypes, gc, sys
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.prepare import ready_to_train

class Allocated(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c hblkhd d e uordblks f g".split()]

mallinfo2 = ctypes.CDLL("libc.so.6").mallinfo2
mallinfo2.restype = Allocated

def allocated():
    gc.collect()
    found = mallinfo2()
    return found.uordblks + found.hblkhd

early, late, *words = sys.argv[1:]
fixed = ["method=lora", "dtype=bfloat16", "device=cpu", "threads=1", "data.source=embedded", "train.batch_size=2"]
training, state = ready_to_train(compose_run([*words, *fixed, f"train.max_steps={late}"]))
training.model.train()
for step in range(1, int(late) + 1):
    training.step(state)
    if step in (int(early), int(late)):
        print("allocated", allocated())
"""


def has_counter() -> bool:
    try:
        return hasattr(ctypes.CDLL("libc.so.6"), "mallinfo2")
    except OSError:
        return False


@pytest.mark.skipif(not has_counter(), reason="the C library does not report allocated bytes (glibc 2.33 does)")
@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("micro", "gsm8k"),
        pytest.param("minilm", "glue/sst2", marks=pytest.mark.slow),
        pytest.param("vit_micro", "vision/dtd10", marks=pytest.mark.slow),
    ],
)
def test_allocated_memory_does_not_grow_with_steps(model: str, task: str) -> None:
    """The decoder had 178 MiB after 5 steps and 198 after 60 with torch's cache unbounded; bounded: 164 and 165."""
    unset = {"LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}  # this process may have inherited them
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    words = [str(EARLY), str(LATE), f"model={model}", f"task={task}"]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *words], capture_output=True, text=True, env=environment, check=True
    )
    early, late = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("allocated"))
    assert late <= 1.03 * early
