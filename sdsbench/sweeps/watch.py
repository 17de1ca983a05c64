"""What a sweep shows while it runs: a live table on a terminal, a plain line per ended run elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sdsbench.core.clock import clock
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.pool import Ended, Pool, newest_numbers
from sdsbench.sweeps.states import FAILED, OVER, States


def watch(pool: Pool, plan: Plan, states: States, again: Sequence[str]) -> None:
    """Show and drive a pool until its last worker has ended; runs in the states `again` are taken once more."""
    tally = Tally(plan, states, again)
    console = Console(file=sys.stdout)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            going = True
            while going:
                live.update(table(pool, tally, states))
                going, ended = pool.step(1.0)
                for run in ended:
                    tally.add(run)
                    live.console.print(tally.line(run), markup=False, highlight=False)
        return
    going = True
    while going:
        going, ended = pool.step(5.0)
        for run in ended:
            tally.add(run)
            print(tally.line(run), flush=True)


class Tally:
    """Counts of a sweep, kept up without reading all records again."""

    def __init__(self, plan: Plan, states: States, again: Sequence[str]) -> None:
        over = [state for state in OVER if state not in again]
        slots = list(states.all())
        self.plan = plan
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
        """One ended run."""
        text = f"{self.over}/{self.total}  {run.run}  {run.status:<8} {self.plan.difference(run.run)}  "
        text += f"{clock(run.seconds)}  {self.left()}"
        return text + (f"\n    {run.message}" if run.status not in ("done",) and run.message else "")

    def headline(self) -> str:
        """The state of the whole sweep in a line."""
        spent = time.monotonic() - self.started
        rate = (self.over - self.before) / max(spent, 1e-9) * 3600
        return f"{self.over}/{self.total} over, {self.failed} failed, {rate:.0f} runs/h, {clock(spent)}, {self.left()}"


def table(pool: Pool, tally: Tally, states: States) -> Table:
    """A row a run."""
    shown = Table(title=tally.headline(), title_justify="left", expand=True)
    for column in ("worker", "run", "what", "step", "loss", "tokens/s", "for"):
        shown.add_column(column, no_wrap=column != "what")
    for active in pool.active:
        if not active.runs:
            shown.add_row(active.allocation.name, "-")
        for run, since in active.runs.items():
            numbers = newest_numbers(states.root / run)
            speed = f"{numbers['tokens'] / numbers['seconds']:,.0f}" if numbers else ""
            loss = f"{numbers['loss']:.4f}" if numbers else ""
            what, spent = tally.plan.difference(run), clock(time.monotonic() - since)
            shown.add_row(active.allocation.name, run, what, str(numbers.get("step", "")), loss, speed, spent)
    return shown
