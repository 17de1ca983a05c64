"""The progress display of a running sweep: counts, remaining time and a line per finished run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdsbench.__main__ import main
from sdsbench.core.record import Failure
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.sweeps import watch as watch_module
from sdsbench.sweeps.overview import print_overview
from sdsbench.sweeps.plan import Plan, TunedCell
from sdsbench.sweeps.pool import ActiveWorker, Allocation, EndedRun
from sdsbench.sweeps.states import FAILED, States
from sdsbench.sweeps.watch import Tally, watch
from tests.sweeps.tools import TINY, put_record, tiny_plan


def ended(run: str, status: str = "done") -> EndedRun:
    return EndedRun(run, status, "", 1.0)


def plan_with_tally(folder: Path, first: str = "done", again: tuple[str, ...] = ()) -> tuple[Plan, list[str], Tally]:
    """A plan of three runs, the first of which has ended, its run ids, and a tally of it."""
    plan = tiny_plan(folder, "seed=0,1,2")
    runs = list(plan.manifest.runs)
    put_record(plan, folder / "runs", runs[0], first)
    return plan, runs, Tally(plan, States(plan, folder / "runs"), again)


def test_tally_counts_earlier_and_newly_finished_runs(tmp_path: Path) -> None:
    _, runs, tally = plan_with_tally(tmp_path)
    assert (tally.over, tally.total) == (1, 3)
    tally.add(ended(runs[1]))
    tally.add(ended(runs[2], "oom"))
    assert (tally.over, tally.failed) == (3, 1)
    assert tally.headline(2).startswith("3 of 3, 2 running, 1 failed, ")
    assert tally.words(ended(runs[0])) == [runs[0][:8], "done", "seed=0", "gsm8k 50.00", "0:01"]


def test_loss_is_not_shown_in_percent(tmp_path: Path) -> None:
    _, runs, tally = plan_with_tally(tmp_path)
    path = tmp_path / "runs" / runs[0] / "record.json"
    record = read_record(path)
    text = {"evaluation": "text", "scorer": "loss", "value": 3.0712, "unit": "number", "better": "lower"}
    record.scores.append(record.scores[0].model_copy(update=text))
    write_record(path.parent, record)
    assert tally.score(runs[0]) == "gsm8k 50.00, text 3.0712"


def test_tally_counts_each_run_once(tmp_path: Path) -> None:
    """A worker also reports finished runs whose record got a new tuning note, and runs that it retries."""
    _, runs, tally = plan_with_tally(tmp_path)
    tally.add(ended(runs[0]))
    tally.add(ended(runs[1], "failed"))
    tally.add(ended(runs[1]))
    assert (tally.over, tally.failed) == (2, 0)


def test_retry_does_not_count_failed_runs_as_finished(tmp_path: Path) -> None:
    _, runs, tally = plan_with_tally(tmp_path, "failed", again=FAILED)
    assert tally.over == 0
    tally.add(ended(runs[0]))
    assert tally.over == 1 and tally.left() != "time left not known yet"


def test_remaining_time_is_shown_once_a_run_has_ended(tmp_path: Path) -> None:
    _, runs, tally = plan_with_tally(tmp_path)
    assert tally.left() == "time left not known yet"
    tally.add(ended(runs[1]))
    assert tally.left().endswith(" left") and "failed" not in tally.headline(1)


def tuned_plan(folder: Path) -> tuple[Plan, TunedCell, States]:
    """A plan of three declared rates with one extension at each end, one tuning seed and three fresh seeds."""
    (folder / "sweep").mkdir()
    (folder / "sweep/s.yaml").write_text(
        "name: s\nblocks:\n  - axes: {method: [lora], seed: [0, 1, 2]}\n"
        "tune: {key: train.lr, grid: [1e-3, 1e-2, 1e-1], seeds: [100], extend: 1}\n"
    )
    plan = tiny_plan(folder, "sweep=s", config_dirs=(str(folder),))
    (cell,) = plan.manifest.cells.values()
    return plan, cell, States(plan, folder / "runs")


def end_tuning_runs(plan: Plan, cell: TunedCell, tally: Tally, values: dict[int, float | None]) -> None:
    """End the tuning runs at these positions of the grid, with a score, or as failed where it is None."""
    for position, value in values.items():
        status = "done" if value is not None else "failed"
        put_record(plan, plan.folder.parent / "runs", cell.tuning[position][0], status, value)
        tally.add(ended(cell.tuning[position][0], status))


def test_unneeded_runs_count_neither_as_finished_nor_as_remaining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    plan, cell, states = tuned_plan(tmp_path)
    tally = Tally(plan, states, ())
    assert tally.headline(1) == "0 of at most 7, 1 running, time left not known yet"
    end_tuning_runs(plan, cell, tally, {1: 0.1, 2: 0.2})
    now.seconds = 20.0
    assert tally.headline(1) == "2 of at most 7, 1 running, at most 0:50 left"
    end_tuning_runs(plan, cell, tally, {3: 0.1})
    now.seconds = 30.0
    assert tally.headline(1) == "3 of 6, 1 running, 2 unneeded, 0:30 left"
    tally.add(ended(cell.final["1"][2]))
    assert tally.count() == "4 of 6"
    again = Tally(plan, States(plan, tmp_path / "runs"), ())
    assert again.headline(0) == "3 of 6, 0 running, 2 unneeded, time left not known yet"


def test_extended_grid_counts_the_runs_that_it_needs(tmp_path: Path) -> None:
    plan, cell, states = tuned_plan(tmp_path)
    tally = Tally(plan, states, ())
    end_tuning_runs(plan, cell, tally, {1: 0.1, 2: 0.2, 3: 0.3})
    assert tally.count() == "3 of at most 7"
    end_tuning_runs(plan, cell, tally, {4: 0.2})
    assert tally.headline(0).startswith("4 of 7, 0 running, 1 unneeded, ")


def test_the_overview_counts_the_runs_that_the_sweep_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A grid grows at one end alone: of two ends with one value each, one run may be needed."""
    plan, cell, states = tuned_plan(tmp_path)
    capsys.readouterr()  # what planning printed

    def first_line() -> str:
        print_overview(plan, {"output_root": str(tmp_path / "runs")}, everything=True)
        return capsys.readouterr().out.splitlines()[0]

    tally = Tally(plan, states, ())
    assert tally.count() == "0 of at most 7"
    assert first_line() == "at most 7 runs: 4 waiting, 3 not started"
    end_tuning_runs(plan, cell, tally, {1: 0.1, 2: 0.2, 3: 0.3})
    assert tally.count() == "3 of at most 7"
    assert first_line() == "7 runs: 3 done, 3 waiting, 1 not started"
    end_tuning_runs(plan, cell, tally, {4: 0.2})
    assert tally.count() == "4 of 7"
    assert first_line() == "7 runs: 4 done, 3 not started, 1 unneeded"


def test_overview_says_that_preempted_includes_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    place = {"output_root": str(tmp_path / "runs")}
    print_overview(plan, place, everything=True)
    assert "Ctrl-C" not in capsys.readouterr().out
    put_record(plan, tmp_path / "runs", next(iter(plan.manifest.runs)), "preempted")
    print_overview(plan, place, everything=True)
    assert "preempted: stopped by a signal (Ctrl-C" in capsys.readouterr().out


def test_overview_shows_no_message_of_an_earlier_attempt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record keeps what ended an attempt until the next one ends."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    first = next(iter(plan.manifest.runs))
    failure = Failure(type="TrainingFailed", message="the loss is not finite")
    for status, shown in (("failed", True), ("running", False)):
        record = put_record(plan, tmp_path / "runs", first, status)
        write_record(tmp_path / "runs" / first, record.model_copy(update={"failure": failure}))
        capsys.readouterr()
        print_overview(plan, {"output_root": str(tmp_path / "runs")}, everything=True)
        assert ("the loss is not finite" in capsys.readouterr().out) is shown, status


def test_overview_tells_waiting_runs_apart_by_the_axis_of_their_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{axes: {method: [lora], seeds.init: [71, 72]}}]\n"
        "tune: {key: train.lr, grid: [1e-3, 2e-3], seeds: [9], evaluation_seeds_axis: seeds.init}\n"
    )
    plan = tiny_plan(tmp_path, "sweep=t", config_dirs=(str(tmp_path),))
    capsys.readouterr()
    print_overview(plan, {"output_root": str(tmp_path / "runs")}, everything=True)
    waiting = [
        line.split() for line in capsys.readouterr().out.splitlines() if " waiting" in line and "(tuned)" in line
    ]
    assert len(waiting) == 2 and "71" in waiting[0] and "72" in waiting[1]


def test_plan_does_not_call_configurations_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tuned cell has a configuration for each value that tuning may choose, of which few run."""
    words = [*TINY, "sweep=s", f"output_root={tmp_path / 'runs'}"]
    words += ["--config-dir", str(tmp_path), "--folder", str(tmp_path / "again")]
    tuned_plan(tmp_path)
    assert main(["plan", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("configurations added (one for each value that tuning may try or choose)" in line for line in lines) == 1
    assert not any("new run" in line for line in lines) and "at most 7 runs: 4 waiting, 3 not started" in lines


def test_runs_whose_tuning_failed_are_over(tmp_path: Path) -> None:
    plan, cell, states = tuned_plan(tmp_path)
    tally = Tally(plan, states, ())
    end_tuning_runs(plan, cell, tally, {1: None, 2: None, 3: None})
    assert tally.headline(0) == "6 of 6, 0 running, 3 failed, 2 unneeded, 0:00 left"
    end_tuning_runs(plan, cell, tally, {2: 0.1})  # a retry
    assert tally.headline(0).startswith("3 of 6, 0 running, 2 failed, 2 unneeded, ")


class FakePool:
    """A pool of two running runs, the first of which ends at the next call of `step`."""

    stopping = False

    def __init__(self, runs: list[str], end: EndedRun, finish: Callable[[], object]) -> None:
        self._finish = finish
        places = [Allocation("cpu0", 1), Allocation("cpu1", 1)]
        self.active = [
            ActiveWorker(place, None, {run: time.monotonic() - 65})  # type: ignore[arg-type]
            for place, run in zip(places, runs, strict=True)
        ]
        self.left = [end]

    @property
    def running(self) -> int:
        return sum(len(active.runs) for active in self.active)

    def step(self, _seconds: float) -> tuple[bool, list[EndedRun]]:
        self._finish()
        return len(self.left) > 1, [self.left.pop()]


def watch_plan(tmp_path: Path, status: str = "done", message: str = "") -> list[str]:
    """Display a plan whose run has markup and control characters in its name and then ends; returns the run ids."""
    plan, runs, _ = plan_with_tally(tmp_path)
    plan.manifest.runs[runs[1]].point["what"] = "a [red]name[/red] \x1b[2J " + "long " * 30
    (tmp_path / "runs" / runs[1]).mkdir()
    step = {"kind": "train", "step": 40, "loss": 1.25, "tokens": 900, "seconds": 0.3}
    (tmp_path / "runs" / runs[1] / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    end = EndedRun(runs[1], status, message, 1.0)
    pool = FakePool(runs[1:], end, lambda: put_record(plan, tmp_path / "runs", runs[1], status, 0.273))
    watch(pool, plan, States(plan, tmp_path / "runs"), ())  # type: ignore[arg-type]
    return runs


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Make standard output a terminal of 80 columns; returns a function that gives the lines written to it."""
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)

    def lines() -> list[str]:
        text = re.sub(r"\x1b\[[01]?m|\x1b\[\d*[A-Zhl]|\x1b\[\?25[hl]|\r", "", capsys.readouterr().out)
        assert "\x1b" not in text, "no escape sequence from names, and no colours"
        return text.splitlines()

    return lines


def test_every_line_fits_a_terminal_of_80_columns(tmp_path: Path, terminal: Callable[[], list[str]]) -> None:
    runs = watch_plan(tmp_path)
    lines = terminal()
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"what=a \[red\]name\[/red\].*… +40 +1.2500 +3,000 ", line) for line in lines), "\n".join(
        lines
    )
    counts = [line for line in lines if " of 3" in line]
    assert counts[0] == "1 of 3, 2 running, time left not known yet" and counts[-1].startswith("2 of 3, 2 running, ")
    (line,) = (line for line in lines if line.startswith(runs[1][:8]))
    assert line.startswith(f"{runs[1][:8]}  done  seed=1 what=a [red]name[/red] \\x1b[2J long")
    assert line.endswith("…  gsm8k 27.30  0:01") and len(line) == 80, "the run's point is shortened"


def test_failure_reason_is_wrapped_between_words(tmp_path: Path, terminal: Callable[[], list[str]]) -> None:
    runs = watch_plan(tmp_path, "failed", "the loss is not finite; " + "reasons " * 12 + "/a/path\x1b[2J")
    lines = terminal()
    assert max(map(len, lines)) <= 80
    (place,) = (number for number, line in enumerate(lines) if line.startswith(f"{runs[1][:8]}  failed"))
    assert lines[place + 1].startswith("    the loss is not finite; reasons ")
    assert re.fullmatch(r" {6}(reasons )+/a/path\\x1b\[2J", lines[place + 2])


def test_without_a_terminal_each_run_is_a_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = watch_plan(tmp_path)
    first, last = capsys.readouterr().out.splitlines()[-2:]
    assert first == "1 of 3, 2 running, time left not known yet"
    assert last.startswith(f"2 of 3  {runs[1][:8]}  done") and "\\x1b[2J" in last
    assert re.search(r"gsm8k 27\.30  0:01  \(2 running, \S+ left\)$", last)


def test_last_frame_counts_runs_whose_end_no_worker_reported(tmp_path: Path) -> None:
    plan, runs, tally = plan_with_tally(tmp_path)
    for run in runs[1:]:
        put_record(plan, tmp_path / "runs", run)
    assert tally.headline(0).startswith("1 of 3, 0 running, ")
    tally.finish()
    assert tally.headline(0) == "3 of 3, 0 running"
