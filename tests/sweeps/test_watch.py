"""What a sweep says of itself while it runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdsbench.core.run_folder import read_record, write_record
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.pool import Active, Allocation, Ended
from sdsbench.sweeps.states import FAILED, States
from sdsbench.sweeps.watch import Tally, watch
from tests.sweeps.tools import put_record, tiny_plan


def ended(run: str, status: str = "done") -> Ended:
    return Ended(run, status, "", 1.0)


def started(folder: Path, first: str = "done", again: tuple[str, ...] = ()) -> tuple[Plan, list[str], Tally]:
    """A plan of three runs, the first of them over."""
    plan = tiny_plan(folder, "seed=0,1,2")
    runs = list(plan.manifest.runs)
    put_record(plan, folder / "runs", runs[0], first)
    return plan, runs, Tally(plan, States(plan, folder / "runs"), again)


def test_counts_what_was_done_before_and_what_ends(tmp_path: Path) -> None:
    _, runs, tally = started(tmp_path)
    assert (tally.over, tally.total) == (1, 3)
    tally.add(ended(runs[1]))
    tally.add(ended(runs[2], "oom"))
    assert (tally.over, tally.failed) == (3, 1)
    assert tally.headline(2).startswith("3 of 3, 2 running, 1 failed, ")
    assert tally.line(ended(runs[0])) == f"3 of 3  {runs[0][:8]}  done  seed=0  gsm8k 50.00  0:01"


def test_a_loss_is_not_shown_in_per_cent(tmp_path: Path) -> None:
    _, runs, tally = started(tmp_path)
    path = tmp_path / "runs" / runs[0] / "record.json"
    record = read_record(path)
    text = {"evaluation": "text", "scorer": "loss", "value": 3.0712, "unit": "number", "better": "lower"}
    record.scores.append(record.scores[0].model_copy(update=text))
    write_record(path.parent, record)
    assert tally.score(runs[0]) == "gsm8k 50.00, text 3.0712"


def test_never_counts_a_run_twice(tmp_path: Path) -> None:
    """A worker also reports finished runs whose record only got a new note on its tuning, and runs that it retries."""
    _, runs, tally = started(tmp_path)
    tally.add(ended(runs[0]))
    tally.add(ended(runs[1], "failed"))
    tally.add(ended(runs[1]))
    assert (tally.over, tally.failed) == (2, 0)


def test_a_retry_starts_from_what_did_not_fail(tmp_path: Path) -> None:
    _, runs, tally = started(tmp_path, "failed", again=FAILED)
    assert tally.over == 0
    tally.add(ended(runs[0]))
    assert tally.over == 1 and tally.left() != "time left not known yet"


def test_says_how_long_is_left_once_a_run_has_ended(tmp_path: Path) -> None:
    _, runs, tally = started(tmp_path)
    assert tally.left() == "time left not known yet"
    tally.add(ended(runs[1]))
    assert tally.left().endswith(" left") and "failed" not in tally.headline(1)


class FakePool:
    """A pool whose two runs are in hand, one of them with a step behind it; the first ends at the next look."""

    stopping = False

    def __init__(self, runs: list[str], finish: Callable[[], object]) -> None:
        self._finish = finish
        places = [Allocation("cpu0", 1), Allocation("cpu1", 1)]
        self.active = [
            Active(place, None, {run: time.monotonic() - 65})  # type: ignore[arg-type]
            for place, run in zip(places, runs, strict=True)
        ]
        self.left = [ended(runs[0])]

    @property
    def running(self) -> int:
        return sum(len(active.runs) for active in self.active)

    def step(self, _seconds: float) -> tuple[bool, list[Ended]]:
        self._finish()
        return len(self.left) > 1, [self.left.pop()]


def watched(tmp_path: Path) -> list[str]:
    """Shows a plan with names and brackets of data; returns the ids of its runs."""
    plan, runs, _ = started(tmp_path)
    plan.manifest.runs[runs[1]].point["what"] = "a [red]name[/red] \x1b[2J " + "long " * 30
    (tmp_path / "runs" / runs[1]).mkdir()
    step = {"kind": "train", "step": 40, "loss": 1.25, "tokens": 900, "seconds": 0.3}
    (tmp_path / "runs" / runs[1] / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    pool = FakePool(runs[1:], lambda: put_record(plan, tmp_path / "runs", runs[1], "done", 0.273))
    watch(pool, plan, States(plan, tmp_path / "runs"), ())  # type: ignore[arg-type]
    return runs


def test_a_terminal_of_80_columns_holds_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    runs = watched(tmp_path)
    text = re.sub(r"\x1b\[[01]?m|\x1b\[\d*[A-Zhl]|\x1b\[\?25[hl]|\r", "", capsys.readouterr().out)
    rows = [line for line in text.splitlines() if line.startswith(("worker", "cpu"))]
    assert max(map(len, rows)) <= 80
    assert any(re.search(r"what=a \[red\]name\[/red\]?… +40 +1.2500 +3,000 ", row) for row in rows), rows
    assert "1 of 3, 2 running, time left not known yet" in text
    assert f"2 of 3  {runs[1][:8]}  done  seed=1 what=a [red]name[/red] \\x1b[2J long" in text and "gsm8k 27.30" in text
    assert "\x1b" not in text, "neither data nor colours"


def test_elsewhere_there_is_a_plain_line_for_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = watched(tmp_path)
    first, last = capsys.readouterr().out.splitlines()[-2:]
    assert first == "1 of 3, 2 running, time left not known yet"
    assert last.startswith(f"2 of 3  {runs[1][:8]}  done") and "\\x1b[2J" in last
    assert re.search(r"gsm8k 27\.30  0:01  \(2 running, \S+ left\)$", last)
