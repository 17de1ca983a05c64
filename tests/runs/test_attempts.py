"""Attempts in a run's record: how one without an end is marked, and the CPU load that it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.core.processor import Load
from sdsbench.core.record import Attempt
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.runs.keeper import RecordKeeper
from tests.sweeps.tools import put_record, tiny_plan


def test_attempt_of_a_vanished_process_gets_the_status_of_how_it_was_lost(tmp_path: Path) -> None:
    """The next keeper of the record marks it, since a killed process cannot."""
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    record = put_record(plan, tmp_path / "runs", name, "running", None)
    record.attempts = [Attempt(started="2026-01-01T00:00:00+00:00", status="running")]
    write_record(tmp_path / "runs" / name, record)
    keeper = RecordKeeper(tmp_path / "runs" / name, plan.configuration(name, {}), name, print, "node_failure")
    assert [attempt.status for attempt in keeper.record.attempts] == ["node_failure"]


def test_attempt_records_how_many_cores_other_processes_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    moments = iter([Load(busy=100.0, own=3.0, clock=50.0), Load(busy=125.0, own=13.0, clock=60.0)])
    monkeypatch.setattr(Load, "now", lambda: next(moments))
    keeper = RecordKeeper(folder, plan.configuration(name, {}), name)
    with keeper.attempt():
        keeper.end()
    assert read_record(folder / "record.json").attempts[-1].others == 1.5
