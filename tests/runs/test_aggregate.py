"""task=glue and task=vtab start one run per member task and print the means over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.runs.aggregate import member_runs
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id

FAST = [
    "model=vit_micro", "method=lora", "data.source=embedded", "data.train_limit=64", "train.max_steps=4", "threads=1",
    "eval.limit=20", "eval.untrained=false",
]  # fmt: skip


def test_each_member_is_a_run_of_its_own() -> None:
    words = ["task=vtab", *FAST]
    configs = member_runs(compose_run(words), words)
    assert len(configs) == 19
    assert len({run_id(config) for config in configs}) == 19
    alone = compose_run(["task=vtab/dtd", *FAST])
    assert run_id(alone) in {run_id(config) for config in configs}


def test_printed_means_are_means_of_the_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = "task.members=[vtab/dtd,vtab/eurosat]"
    assert main(["task=vtab", members, *FAST, f"output_root={tmp_path}"]) == 0
    out = capsys.readouterr().out.splitlines()
    value = {line.split()[-2]: float(line.split()[-1]) for line in out[-6:] if line.startswith("  ")}
    assert value["vtab/natural"] == value["vtab/dtd"]
    assert value["vtab"] == pytest.approx((value["vtab/dtd"] + value["vtab/eurosat"]) / 2, abs=0.011)
    assert len(list(tmp_path.glob("*/record.json"))) == 2
