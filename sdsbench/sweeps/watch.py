"""Show the progress of a sweep: a live table on a terminal, otherwise one plain line per ended run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sdsbench.core.clock import clock
from sdsbench.core.console import fitted, print_now, rich_console, terminal_text, wrapped
from sdsbench.core.errors import DamagedFile
from sdsbench.core.run_folder import read_record
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.pool import EndedRun, Pool, newest_numbers
from sdsbench.sweeps.states import FAILED, OVER, States
from sdsbench.sweeps.tuning import TunedChoice

SHORT = 8  # digits of a run's id that are shown; every command accepts the beginning of an id
WHAT, SCORE = 2, 3  # positions in `Tally.words` of the texts that are shortened on a narrow terminal, in this order


def watch(pool: Pool, plan: Plan, states: States, again: Sequence[str]) -> None:
    """Drive a pool and show its progress until the last worker has ended; runs in the states `again` are run again."""
    tally = Tally(plan, states, again)
    console = rich_console()
    if not console.is_terminal or console.is_dumb_terminal:
        print_now(tally.headline(pool.running))
        _drive(pool, tally, 5.0, lambda run: _print_ended(pool, tally, run), lambda: None)
        return
    with Live(console=console, auto_refresh=False) as live:

        def log(run: EndedRun) -> None:
            words = [terminal_text(word) for word in tally.words(run)]
            lines = [fitted(words, (WHAT, SCORE), console.width)]
            lines += [wrapped(terminal_text(line), console.width) for line in _reason(run)]
            live.console.print(Text("\n".join(lines)), soft_wrap=True)

        def show() -> None:
            last = "stopping: workers save their runs; again: now" if pool.stopping else ""
            count = Text(tally.headline(pool.running), no_wrap=True, overflow="ellipsis")
            live.update(Group(table(pool, tally, states), count, last), refresh=True)

        _drive(pool, tally, 0.5, log, show)


def _print_ended(pool: Pool, tally: Tally, run: EndedRun) -> None:
    line = "  ".join(filter(None, tally.words(run)))
    print_now(f"{tally.count()}  {line}  ({tally.ahead(pool.running)})")
    for reason in _reason(run):
        print_now(reason)


def _reason(run: EndedRun) -> list[str]:
    return [f"    {line}" for line in run.message.splitlines()] if run.status != "done" else []


def _drive(pool: Pool, tally: Tally, seconds: float, log: Callable[[EndedRun], None], show: Callable[[], None]) -> None:
    working = True
    while working:
        show()
        working, ended = pool.step(seconds)
        for run in ended:
            tally.add(run)
            log(run)
    tally.finish()
    show()


class Tally:
    """Counts of a sweep's runs, updated as runs end without reading all records again.

    Runs that would extend a tuning grid count in the total while they may be needed. Once they turn out to be unneeded,
    they are removed from it.
    """

    def __init__(self, plan: Plan, states: States, again: Sequence[str]) -> None:
        over = {state for state in OVER if state not in again} - {"unneeded", "impossible"}
        slots = list(states.all())
        self.plan, self._root = plan, states.root
        self._slots = {slot.slot.key for slot in slots}
        self._over = {slot.slot.key for slot in slots if slot.state in over}
        self._extensions: dict[str, set[str]] = defaultdict(set)  # tuned cell -> runs that would extend its grid
        for slot in slots:
            if slot.slot.extends is not None:
                self._extensions[slot.slot.extends].add(slot.slot.key)
        self._choices: dict[str, TunedChoice | None] = {}
        for cell in {cell for slot in slots if (cell := slot.slot.cell or slot.slot.extends)}:
            self._choices[cell] = states.choice(cell)
        self._failed: set[str] = set()
        self._ended = 0  # number of runs that this sweep has ended
        self._finished = False
        self.started = time.monotonic()

    def add(self, run: EndedRun) -> None:
        """Count a run that has ended."""
        slots = {run.run}
        states = States(self.plan, self._root)  # read anew: other processes may have ended tuning runs of the cell
        for key in self._choices:
            cell = self.plan.manifest.cells[key]
            if any(run.run in row for row in (*cell.tuning, *cell.final.values())):
                self._choices[key] = choice = states.choice(key)
                if choice is not None and choice.position is not None:
                    slots |= {f"{key}:{seed}" for seed, row in cell.final.items() if row[choice.position] == run.run}
        if run.status in OVER:
            new = (slots & self._slots) - self._over  # a run that was over before may only have an updated tuning entry
            self._ended += bool(new)
            self._over |= new
        if run.status in FAILED:
            self._failed.add(run.run)
        else:
            self._failed.discard(run.run)

    def finish(self) -> None:
        """Count finished runs by their records once all workers have ended; a worker's last message may be lost."""
        states = States(self.plan, self._root)
        self._choices = {cell: states.choice(cell) for cell in self._choices}
        self._over |= {slot.slot.key for slot in states.all() if slot.state == "done"} & self._slots
        self._finished = True

    @property
    def over(self) -> int:
        """Number of runs that have ended, and of final runs that can never start since tuning of their cell failed."""
        hopeless = {cell for cell, choice in self._choices.items() if choice and choice.position is None}
        finals = {f"{cell}:{seed}" for cell in hopeless for seed in self.plan.manifest.cells[cell].final}
        return len(self._over | (finals & self._slots))

    @property
    def unneeded(self) -> int:
        """Number of runs that would have extended the grid of a cell, but tuning ended without them."""
        return sum(len(runs - self._over) for cell, runs in self._extensions.items() if self._choices[cell])

    @property
    def total(self) -> int:
        """Number of runs that are over or may be needed; a grid grows at one of its ends only (sweeps/tuning.py)."""
        total = len(self._slots)
        for cell, runs in self._extensions.items():
            tuned = self.plan.manifest.cells[cell]
            needed = 0 if self._choices[cell] else min(len(runs), tuned.extend * len(tuned.seeds))
            total -= len(runs) - max(needed, len(runs & self._over))
        return total

    @property
    def at_most(self) -> str:
        """`at most ` while some runs may turn out to be unneeded, else empty."""
        undecided = (runs for cell, runs in self._extensions.items() if self._choices[cell] is None)
        return "at most " if any(runs - self._over for runs in undecided) else ""

    @property
    def failed(self) -> int:
        """Number of runs whose last attempt in this sweep failed."""
        return len(self._failed)

    def left(self) -> str:
        """`1:02:03 left`: an estimate from the throughput so far."""
        if not self._ended:
            return "time left not known yet"
        each = (time.monotonic() - self.started) / self._ended
        return f"{self.at_most}{clock(each * (self.total - self.over))} left"

    def words(self, run: EndedRun) -> list[str]:
        """Texts about an ended run: `4031c7e0`, `done`, `method=lora seed=0` (WHAT), `gsm8k 27.34` (SCORE), `0:31`."""
        what, score = self.plan.difference(run.run), self.score(run.run)
        return [run.run[:SHORT], run.status, what, score, clock(run.seconds)]

    def score(self, identity: str) -> str:
        """`gsm8k 27.34, text 3.0712`: the headline scores of a finished run, shares in per cent."""
        try:
            record = read_record(self._root / identity / "record.json")
        except (OSError, DamagedFile):
            return ""
        last = [score for score in record.scores if score.headline and score.stage in ("trained", "validation")]
        return ", ".join(f"{score.evaluation} {score.shown(score.value)}" for score in last)

    def count(self) -> str:
        """`12 of 36`, or `12 of at most 36`."""
        return f"{self.over} of {self.at_most}{self.total}"

    def headline(self, running: int) -> str:
        """`12 of at most 36, 3 running, 1 failed, 8 unneeded, at most 41:10 left`."""
        return f"{self.count()}, {self.ahead(running)}"

    def ahead(self, running: int) -> str:
        """`3 running, 1 failed, 8 unneeded, 41:10 left`."""
        counts = {"failed": self.failed, "unneeded": self.unneeded}
        others = [f"{number} {what}" for what, number in counts.items() if number]
        left = [] if self._finished and not running else [self.left()]
        return ", ".join([f"{running} running", *others, *left])


def table(pool: Pool, tally: Tally, states: States) -> Table:
    """A table with one row per run, for 80 columns; the column of the run's overrides is shortened first."""
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
