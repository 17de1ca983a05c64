"""Golden losses: 20 steps of every method with `micro`, one thread, fp32. Any change of the mathematics shows here.

Rewrite after an intended change:  python tests/runs/test_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sdsbench.core import step_log as metrics
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from tests.tools import QUIET

GOLDEN = Path(__file__).parent / "golden_losses.json"
METHODS = {
    "full_ft": ["train.lr=1e-3"],
    "lora": [],
    "rslora": [],
    "pissa": ["train.lr=5e-4"],
    "dora": [],
    "lora_pro": [],
    "lora_xs": ["method.rank=16"],
    "lora_sb": ["method.rank=16"],
    "sds_lora": ["method.warmup_steps=5"],
    "olora": [],
    "milora": [],
    "altlora": ["train.lr=1.0"],
}


def losses(method: str, root: Path) -> list[float]:
    """Losses of 20 optimizer steps of 4 x 2 examples."""
    torch.set_num_threads(1)
    overrides = [
        f"method={method}", *METHODS[method], "model=micro", "data.source=embedded", "data.train_limit=200",
        "threads=1", "dtype=float32", "train.max_steps=20", "train.batch_size=4", "train.accumulation=2",
        "eval.limit=2",        "eval.untrained=false", "task.max_new_tokens=4", f"output_root={root}",
    ]  # fmt: skip
    record = execute(compose_run(overrides), QUIET)
    assert record.status == "done"
    lines = metrics.read(root / record.run_id / "metrics.jsonl")
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_the_golden_ones(method: str, tmp_path: Path) -> None:
    found = losses(method, tmp_path)
    assert found == pytest.approx(json.loads(GOLDEN.read_text())[method], rel=1e-4)
    assert found[-1] < found[0]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = [f' "{method}": {json.dumps(losses(method, Path(folder) / method))}' for method in METHODS]
    GOLDEN.write_text("{\n" + ",\n".join(rows) + "\n}\n")
