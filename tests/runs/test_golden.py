"""Golden losses of every registered method with `micro`, one thread, fp32. A change of the mathematics changes them.

Two courses: `plain` is 12 steps at the protocol's settings; `regularised` is two epochs of six steps with dropout,
weight decay, warm-up and, for methods that start from gradients, gradients of several rows. Each step has several
passes.

Rewrite after an intended change:  python tests/runs/test_golden.py [METHOD ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from sdsbench.core import step_log as metrics
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.runs.execute import execute
from tests.tools import QUIET

GOLDEN = Path(__file__).parent / "golden_losses.json"
COMMON = [
    "model=micro", "data.source=embedded", "threads=1", "dtype=float32", "train.batch_size=4", "train.micro_tokens=200",
    "eval.limit=1", "eval.untrained=false", "task.max_new_tokens=2", "task.begin_token=always",
]  # fmt: skip
COURSES = {
    "plain": ["train.max_steps=12", "data.train_limit=200"],
    "regularised": [
        "train.max_steps=null", "train.epochs=2", "data.train_limit=24", "train.weight_decay=1.0",
        "train.warmup_ratio=0.2", "train.schedule=linear",
    ],
}  # fmt: skip
KEYS = {"plain": {"warmup_steps": 5}, "regularised": {"warmup_steps": 5, "dropout": 0.2, "samples": 5}}
"""Set on every method that has them: steps before SDS-LoRA's split, dropout, rows whose gradients a start uses."""
OVERRIDES = {
    "full_ft": ["train.lr=1e-3"],
    "pissa": ["train.lr=5e-4"],
    "preconditioned_lora": ["train.lr=2e-2"],
    "lora_xs": ["method.rank=16"],
    "lora_sb": ["method.rank=16", "train.lr=1e-2"],
    "altlora": ["train.lr=1.0"],
}
"""For methods that learn too little or diverge within so few steps at the protocol's settings."""


def overrides(method: str, course: str) -> list[str]:
    """The command-line overrides of a run."""
    words = [f"method={method}", *OVERRIDES.get(method, []), *COMMON, *COURSES[course]]
    config = compose_run(words).method
    return words + [f"method.{key}={value}" for key, value in KEYS[course].items() if hasattr(config, key)]


def losses(method: str, course: str, root: Path) -> list[float]:
    """The losses of a run's optimizer steps, 4 examples each."""
    torch.set_num_threads(1)
    record = execute(compose_run([*overrides(method, course), f"output_root={root}"]), QUIET)
    assert record.status == "done"
    lines = metrics.read(root / record.run_id / "metrics.jsonl")
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("method", options("method"))
def test_losses_equal_the_golden_losses_and_fall(method: str, course: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())[course]
    assert method in golden, f"a new method: python {Path(__file__).name} {method}"
    found = losses(method, course, tmp_path)
    assert found == pytest.approx(golden[method], rel=1e-4)
    assert found[-1] < found[0]


def write_golden(methods: list[str]) -> None:
    """Run these methods and write their losses to the file of golden losses."""
    import tempfile

    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for course in COURSES:
        for method in methods:
            with tempfile.TemporaryDirectory() as folder:
                golden.setdefault(course, {})[method] = losses(method, course, Path(folder))
    rows = {
        course: ",\n".join(f'  "{method}": {json.dumps(values)}' for method, values in sorted(found.items()))
        for course, found in golden.items()
    }
    GOLDEN.write_text("{\n" + ",\n".join(f' "{course}": {{\n{text}\n }}' for course, text in rows.items()) + "\n}\n")


if __name__ == "__main__":
    write_golden(sys.argv[1:] or list(options("method")))
