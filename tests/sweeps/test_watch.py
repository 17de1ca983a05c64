"""What a sweep says of itself while it runs."""

from __future__ import annotations

from pathlib import Path

from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.pool import Ended
from sdsbench.sweeps.states import FAILED, States
from sdsbench.sweeps.watch import Tally
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
    assert tally.line(ended(runs[2], "oom"), 2).startswith("3 of 3, 2 running, 1 failed, ")


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
