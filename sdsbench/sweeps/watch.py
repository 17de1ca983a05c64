"""What a sweep shows while it runs: a live table on a terminal, a plain line per ended run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sdsbench.core.clock import clock
from sdsbench.core.console import print_now, rich_console, terminal_text
from sdsbench.core.errors import DamagedFile
from sdsbench.core.run_folder import read_record
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.pool import Ended, Pool, newest_numbers
from sdsbench.sweeps.states import FAILED, OVER, States

SHORT = 8  # digits of a run's id that are shown; every command takes the beginning of an id


def watch(pool: Pool, plan: Plan, states: States, again: Sequence[str]) -> None:
    """Show and drive a pool until its last worker has ended; runs in the states `again` are taken once more."""
    tally = Tally(plan, states, again)
    console = rich_console()
    if not console.is_terminal or console.is_dumb_terminal:
        print_now(tally.headline(pool.running))
        _drive(pool, tally, 5.0, lambda line: print_now(f"{line}  ({tally.ahead(pool.running)})"), lambda: None)
        return
    with Live(console=console, auto_refresh=False) as live:

        def say(line: str) -> None:
            live.console.print(Text(terminal_text(line)), soft_wrap=True)

        def show() -> None:
            last = "stopping: workers save their runs; again: now" if pool.stopping else ""
            live.update(Group(table(pool, tally, states), tally.headline(pool.running), last), refresh=True)

        _drive(pool, tally, 0.5, say, show)


def _drive(pool: Pool, tally: Tally, seconds: float, say: Callable[[str], None], show: Callable[[], None]) -> None:
    going = True
    while going:
        show()
        going, ended = pool.step(seconds)
        for run in ended:
            tally.add(run)
            say(tally.line(run))
            if run.status != "done" and run.message:
                say(f"    {run.message}")


class Tally:
    """Counts of a sweep, kept up without reading all records again."""

    def __init__(self, plan: Plan, states: States, again: Sequence[str]) -> None:
        over = [state for state in OVER if state not in again]
        slots = list(states.all())
        self.plan, self._root = plan, states.root
        self.total = len(slots)
        self.before = self.over = sum(slot.state in over for slot in slots)
        self._counted = {slot.identity for slot in slots if slot.state in over}
        self._failed: set[str] = set()
        self.started = time.monotonic()

    @property
    def failed(self) -> int:
        """Runs whose last attempt failed here."""
        return len(self._failed)

    def add(self, run: Ended) -> None:
        if run.status in OVER and run.run not in self._counted:  # a finished run may only get a new note on its tuning
            self._counted.add(run.run)
            self.over += 1
        if run.status in FAILED:
            self._failed.add(run.run)
        else:
            self._failed.discard(run.run)

    def left(self) -> str:
        """`1:02:03 left` from the throughput so far."""
        ended = self.over - self.before
        if not ended:
            return "time left not known yet"
        return f"{clock((time.monotonic() - self.started) / ended * (self.total - self.over))} left"

    def line(self, run: Ended) -> str:
        """The run that ended, with its score: `3 of 36  4031c7e0  done  method=lora seed=0  gsm8k 27.34  0:31`."""
        what = self.plan.difference(run.run)
        where = f"{self.over} of {self.total}"
        return "  ".join(
            filter(None, [where, run.run[:SHORT], run.status, what, self.score(run.run), clock(run.seconds)])
        )

    def score(self, identity: str) -> str:
        """`gsm8k 27.34, text 3.0712`: the headline scores of a finished run, shares in per cent."""
        try:
            record = read_record(self._root / identity / "record.json")
        except (OSError, DamagedFile):
            return ""
        last = [score for score in record.scores if score.headline and score.stage in ("trained", "validation")]
        return ", ".join(f"{score.evaluation} {score.shown(score.value)}" for score in last)

    def headline(self, running: int) -> str:
        """`12 of 36, 3 running, 1 failed, 41:10 left`."""
        return f"{self.over} of {self.total}, {self.ahead(running)}"

    def ahead(self, running: int) -> str:
        """`3 running, 1 failed, 41:10 left`."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{running} running{failed}, {self.left()}"


def table(pool: Pool, tally: Tally, states: States) -> Table:
    """A row a run, in 80 columns; what sets the run apart gives way first."""
    shown = Table(box=None, pad_edge=False, expand=True)
    for column in ("worker", "run", "what", "step", "loss", "tokens/s", "for"):
        ratio = 1 if column == "what" else None
        shown.add_column(column, no_wrap=True, overflow="ellipsis", ratio=ratio)
    for active in pool.active:
        if not active.runs:
            shown.add_row(active.allocation.name, "-")
        for run, since in active.runs.items():
            numbers = newest_numbers(states.root / run)
            speed = f"{numbers['tokens'] / numbers['seconds']:,.0f}" if numbers else ""
            loss = f"{numbers['loss']:.4f}" if numbers else ""
            what, spent = terminal_text(tally.plan.difference(run)), clock(time.monotonic() - since)
            row = (active.allocation.name, run[:SHORT], what, str(numbers.get("step", "")), loss, speed, spent)
            shown.add_row(*map(Text, row))
    return shown
