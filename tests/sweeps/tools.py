"""Small plans and hand-made records."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdsbench.core.record import Record, Score
from sdsbench.core.run_folder import write_record
from sdsbench.runs.keeper import _new_record
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.freeze import freeze
from sdsbench.sweeps.plan import Plan

TINY = [
    "model=micro", "data.source=embedded", "threads=1", "device=cpu", "eval.limit=2", "eval.untrained=false",
    "task.max_new_tokens=4", "data.train_limit=16", "train.max_steps=2", "train.batch_size=2", "train.save=none",
]  # fmt: skip


def tiny_plan(folder: Path, *words: str, config_dirs: tuple[str, ...] = ()) -> Plan:
    """A written plan of runs that take about a second each."""
    sweep = define([*TINY, f"output_root={folder / 'runs'}", *words], config_dirs)
    return plans.write(folder / "plan", *freeze(sweep, config_dirs))[0]


def put_record(plan: Plan, root: Path, identity: str, status: str = "done", value: float | None = 0.5) -> Record:
    """A record of a planned run, as a worker would leave it."""
    config = plan.configuration(identity, {})
    record = _new_record(config, identity)
    record.status = status  # type: ignore[assignment]
    if value is not None:
        stage = "validation" if config.eval.split == "validation" else "trained"
        common = {"evaluation": "gsm8k", "version": 1, "stage": stage, "n": 2}
        record.scores = [
            Score(**common, scorer="flexible", value=value, headline=True),
            Score(**common, scorer="paper", value=0.99),
        ]
    return write_record(root / identity, record)


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[None]:
    """Another process holds the lock of a run's folder within the context, and is killed at its end."""
    hold = (
        "import sys; from pathlib import Path; from sdsbench.core.lock import owned\n"
        "with owned(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(folder)]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        yield
        assert owner.poll() is None, "the other process lived until the end"
    finally:
        owner.kill()
        owner.communicate()
