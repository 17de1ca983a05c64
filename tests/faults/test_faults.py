"""kill -9, full disks and read-only disks: finished runs stay intact, and unfinished ones can be continued."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core import files
from sdsbench.core.errors import DiskRefuses
from sdsbench.core.run_folder import read_record
from sdsbench.runs.execute import execute
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.states import States
from tests.conftest import ROOT
from tests.sweeps.tools import TINY, tiny_plan
from tests.tools import QUIET


def test_killed_runs_end_bitwise_equal_to_uninterrupted_ones(tmp_path: Path) -> None:
    """A short campaign for CI; the script's default is 20 runs and 50 kills."""
    command = [
        sys.executable,
        str(ROOT / "scripts" / "fault_campaign.py"),
        str(tmp_path),
        "--runs",
        "2",
        "--kills",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"3 kills, (\d+) of \1 runs done; all bitwise equal", done.stdout), done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB; the test is skipped where it may not be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_sweep_on_a_full_disk_keeps_finished_runs_and_completes_elsewhere(
    small_disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "method=lora", "method.rank=2", "train.save=adapter", "seed=range(0,8)")
    root = small_disk / "runs"
    code = main(["sweep", str(plan.folder), f"output_root={root}"])
    text = capfd.readouterr()
    assert code == 4
    assert "No space left on device" in text.err
    assert "Everything finished is intact" in text.err
    counts = States(plan, root).counts()
    done = [state for state in States(plan, root).all() if state.state == "done"]
    assert 0 < len(done) < 8, counts
    assert counts.keys() <= {"done", "not started", "preempted", "stopped"}
    moved = tmp_path / "moved"
    subprocess.run(["cp", "-r", str(root), str(moved)], check=True)
    assert main(["sweep", str(plan.folder), f"output_root={moved}"]) == 0
    assert States(plan, moved).counts() == {"done": 8}
    for state in done:  # the records of finished runs are unchanged
        assert state.record == read_record(moved / str(state.identity) / "record.json")


def test_read_only_disk_ends_commands_with_its_message(
    small_disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    root = f"output_root={small_disk / 'runs'}"
    assert main(["sweep", str(plan.folder), root]) == 4
    assert "Read-only file system" in capfd.readouterr().err
    for first in ([], ["-m"]):
        assert main([*first, *TINY, "method=lora", root]) == 4
        text = capfd.readouterr().err
        assert "Read-only file system" in text and "Traceback" not in text


def test_plan_without_room_on_the_disk_leaves_no_files(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "model=micro", "seed=range(0,200)", "--folder", str(small_disk / "plans" / "p")]) == 4
    assert "disk refuses" in capsys.readouterr().err
    assert list((small_disk / "plans").iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("nth", [1, 3, 5])
def test_failed_write_leaves_no_temporary_files_and_the_run_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, nth: int
) -> None:
    """Needs no mounted disk: the nth flush of a run to disk fails, and all later ones."""
    plan: Plan = tiny_plan(tmp_path, "seed=0", "train.checkpoint_every=1")
    (name,) = plan.manifest.runs
    flush, count = os.fsync, 0

    def failing_flush(handle: int) -> None:
        nonlocal count
        count += 1
        if count >= nth:
            raise OSError(code, os.strerror(code))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", failing_flush)
        with pytest.raises(DiskRefuses, match=os.strerror(code)):
            execute(plan.configuration(name, {}), QUIET)
    leftovers = [path.name for path in (tmp_path / "runs" / name).rglob(".*")]
    assert leftovers == []
    if (record := tmp_path / "runs" / name / "record.json").exists():
        assert read_record(record).status == "running"
    assert execute(plan.configuration(name, {}), QUIET).status == "done"
