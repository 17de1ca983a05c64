"""One process that takes runs of a plan, one after the other, until none is left that it may take.

    python -m sdsbench.sweeps.worker PLAN [--slots FILE] [--set KEY=JSON ...] [--retry] [--force]

What happens is told on standard output as lines of JSON (`events` below), what runs say goes to standard error. A run
that fails leaves its record and the worker goes on. Exit codes: 0 nothing left to take, 130 stopped by a signal (state
saved), 74 the disk refuses.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sdsbench.core.containment import require_plain
from sdsbench.core.errors import DiskRefuses, Interrupted, Owned, SdsbenchError
from sdsbench.core.files import disk_errors
from sdsbench.core.lock import owned
from sdsbench.core.record import Record
from sdsbench.models.shared import SharedWeights
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.keeper import RecordKeeper
from sdsbench.runs.run_context import RunContext
from sdsbench.sweeps.active import DrivenRun
from sdsbench.sweeps.group import LARGEST, SharedBase, group_key, group_size, prepare_on_shared_base, train_side_by_side
from sdsbench.sweeps.placing import AUTO, GROUP_SIZE
from sdsbench.sweeps.plan import Plan, Slot, read
from sdsbench.sweeps.pool import DISK
from sdsbench.sweeps.states import FAILED, OVER, STALE, SlotState, States, root_of
from sdsbench.training.signals import StopRequest

TAKE = "take"
SUSPECT = 2  # a run whose process died this often at one step trains alone: it may be the one that kills
LOOK_AGAIN = 1.0  # seconds between looks at tuning runs that others work on


@dataclass
class Worker:
    """Takes the slots of a plan."""

    plan: Plan
    slots: Sequence[Slot]
    placing: Mapping[str, Any]
    tell: Callable[..., None]
    retry: bool = False  # also take runs that failed
    force: bool = False  # also take runs whose code or base weights have changed since
    deaths: int = 5  # a run whose processes died this often without a step forward is given up
    lost_as: Literal["killed", "node_failure"] = "killed"
    group_size: int | str = 1
    weights: SharedWeights = field(default_factory=SharedWeights)

    def work(self, stop: StopRequest) -> None:
        """Take slots until none is left. Raises Interrupted and DiskRefuses; failing runs only leave records."""
        left = list(self.slots)
        tried: set[str] = set()
        while left:
            left, progress = self._pass(left, stop, tried)
            if left and not progress:
                if not self._others_tune(left):
                    return
                time.sleep(LOOK_AGAIN)
                stop.raise_if_received("no run was in progress")

    def _pass(self, slots: Sequence[Slot], stop: StopRequest, tried: set[str]) -> tuple[list[Slot], bool]:
        """Look at every slot once; returns those that wait for tuning or for their owner, and whether any was run."""
        left: list[Slot] = []
        progress = False
        gathered: dict[str, dict[str, Slot]] = {}  # runs that may share a base, until enough are found

        def run(group: Mapping[str, Slot]) -> None:
            nonlocal progress
            kept = self._run(group, stop, tried)
            left.extend(kept)
            progress |= len(kept) < len(group)

        for slot in slots:
            stop.raise_if_received("no run was in progress")
            now = self._look(slot, tried)
            if now.state == TAKE:
                key, runs_together = self._group_of(now)
                group = gathered.setdefault(key, {})
                group[str(now.identity)] = slot
                if len(group) >= runs_together:
                    run(gathered.pop(key))
            elif now.state not in OVER:
                left.append(slot)
        for group in gathered.values():
            stop.raise_if_received("no run was in progress")
            run(group)
        return left, progress

    def _look(self, slot: Slot, tried: Set[str]) -> SlotState:
        """Where a slot stands now; the state is TAKE where this worker may run it."""
        states = States(self.plan, root_of(self.plan, self.placing))
        now = states.of(slot)
        again = (self.retry and now.state in FAILED) or (self.force and now.state == STALE)
        again = again and now.identity not in tried
        if now.state == "done" and slot.cell is not None and now.record is not None:
            choice = states.choice(slot.cell)  # a larger budget may have chosen the same: its record shall say so
            again = choice is not None and choice.tuning != now.record.tuning
        if again or not (now.state in (*OVER, "waiting", "running") or now.identity is None):
            return dataclasses.replace(now, state=TAKE)
        return now

    def _group_of(self, now: SlotState) -> tuple[str, int]:
        """A text that runs of one group share, and how many of them make a group."""
        alone = str(now.identity), 1
        if self.group_size == 1 or (now.record is not None and _deaths(now.record) >= SUSPECT):
            return alone
        try:
            config = self.plan.configuration(str(now.identity), self.placing)
        except SdsbenchError:  # told when it is run
            return alone
        key = group_key(config)
        return alone if key is None else (key, group_size(self.group_size, config))

    def _others_tune(self, slots: Iterable[Slot]) -> bool:
        """Whether some slot waits for tuning runs that living processes work on."""
        states = States(self.plan, root_of(self.plan, self.placing))
        waiting = {slot.cell or slot.extends for slot in slots if states.of(slot).state == "waiting"}
        running = (
            states.of(Slot(identity)).state == "running"
            for cell in waiting
            for row in self.plan.manifest.cells[str(cell)].tuning
            for identity in row
        )
        return any(running)

    def _run(self, group: Mapping[str, Slot], stop: StopRequest, tried: set[str]) -> list[Slot]:
        """Run slots by identity, side by side where there are several; returns those that others have.

        Raises Interrupted and DiskRefuses when every run has been dealt with.
        """
        states = {identity: self._look(slot, tried) for identity, slot in group.items()}  # before any lock is held
        tried |= group.keys()
        base = SharedBase(self.weights) if len(group) > 1 else None
        with ExitStack() as held:
            runs = [
                held.enter_context(DrivenRun(identity, self.tell))
                for identity, now in states.items()
                if now.state == TAKE
            ]
            for run in runs:
                self._prepare(run, group[run.identity], states[run.identity], base, stop)
            if base is not None:
                train_side_by_side(base, _log)
            for run in runs:
                run.complete()
        for run in runs:
            if isinstance(run.error, Interrupted | DiskRefuses):
                raise run.error
        kept = {run.identity for run in runs if isinstance(run.error, Owned)}
        kept |= {identity for identity, now in states.items() if now.state != TAKE and now.state not in OVER}
        return [group[identity] for identity in group if identity in kept]

    def _prepare(self, run: DrivenRun, slot: Slot, now: SlotState, base: SharedBase | None, stop: StopRequest) -> None:
        """Bring one run of the plan to where training starts; a run that keeps killing its processes is given up."""
        root = root_of(self.plan, self.placing)
        try:
            stop.raise_if_received("it had not begun")
            config = self.plan.configuration(run.identity, {**self.placing, "force": bool(now.changed)})
        except SdsbenchError as error:
            run.fail(error)
            return
        if now.record is not None and _deaths(now.record) >= self.deaths:
            run.record_only(lambda: self._give_up(root / run.identity, config, run.identity))
            return
        choice = States(self.plan, root).choice(slot.cell) if slot.cell is not None else None
        tuning = choice.tuning if choice else None
        context = RunContext(_log, stop, self.weights, tuning, self.lost_as)
        if base is None:
            run.prepare(config, context)
        else:
            prepare_on_shared_base(run, config, context, base)

    def _give_up(self, folder: Path, config: RunConfig, identity: str) -> Record:
        """Record a run that kills its processes (native code, the out-of-memory killer) as failed."""
        require_plain(folder)
        with disk_errors(folder.parent), owned(folder):
            keeper = RecordKeeper(folder, config, identity, _log, self.lost_as)
            keeper.give_up(
                f"its process died {self.deaths} times at step {keeper.record.attempts[-1].from_step} without an error "
                "(killed, or a crash in native code)"
            )
            return keeper.record


def _deaths(record: Record) -> int:
    """How often in a row a process died at the same step."""
    count, step = 0, None
    for attempt in reversed(record.attempts):
        if attempt.status not in ("running", "killed") or (step is not None and attempt.from_step != step):
            break
        count, step = count + 1, attempt.from_step
    return count


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tell(event: str, **facts: Any) -> None:
    try:
        print(json.dumps({"event": event, **facts}), flush=True)
    except BrokenPipeError:
        raise Interrupted("the sweep that started this worker is gone") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdsbench.sweeps.worker", description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--slots", type=Path, help="JSON list of slot keys; default: the whole plan")
    parser.add_argument("--first", type=int, default=0, help="leave so many slots (groups) to others, go round")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="a placing key")
    parser.add_argument("--retry", action="store_true", help="also take runs that failed")
    parser.add_argument("--force", action="store_true", help="also take runs whose code or base weights have changed")
    parser.add_argument("--deaths", type=int, default=Worker.deaths)
    parser.add_argument("--lost-as", choices=("killed", "node_failure"), default="killed")
    given = parser.parse_args(arguments)
    try:
        with StopRequest() as stop:
            plan = read(given.plan)
            slots = list(plan.slots())
            if given.slots:
                wanted = set(json.loads(given.slots.read_text()))
                slots = [slot for slot in slots if slot.key in wanted]
            placing: dict[str, Any] = {
                key: json.loads(value) for key, _, value in (word.partition("=") for word in given.set)
            }
            size = placing.pop(GROUP_SIZE, 1)
            first = given.first * (LARGEST if size == AUTO else size) % max(1, len(slots))
            slots = slots[first:] + slots[:first]
            worker = Worker(plan, slots, placing, _tell, given.retry, given.force, given.deaths, given.lost_as, size)
            worker.work(stop)
    except DiskRefuses as error:
        _log(f"sdsbench: {error}")
        _tell("disk", message=str(error))
        return DISK
    except SdsbenchError as error:
        _log(f"sdsbench: {error}")
        _tell("stopped", message=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
