"""One process that takes runs of a plan, one after the other, until none is left that it may take.

    python -m sdsbench.sweeps.worker PLAN [--slots FILE] [--set KEY=JSON ...] [--retry]

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
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sdsbench.core.errors import DiskRefuses, Interrupted, Owned, SdsbenchError
from sdsbench.core.files import disk_errors
from sdsbench.core.lock import owned
from sdsbench.core.record import Record
from sdsbench.models.load import LoadedModel
from sdsbench.models.shared import SharedWeights
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.keeper import Keeper
from sdsbench.runs.pipeline import Stages, Surroundings, stages
from sdsbench.sweeps.group import LARGEST, OneBase, group_size, kinship, train_side_by_side
from sdsbench.sweeps.placing import AUTO, GROUP_SIZE
from sdsbench.sweeps.plan import Plan, Slot, read
from sdsbench.sweeps.pool import DISK
from sdsbench.sweeps.states import FAILED, OVER, SlotState, States, root_of
from sdsbench.training.side_by_side import Member
from sdsbench.training.signals import StopRequest

TAKE = "take"
SUSPECT = 2  # a run whose process died this often at one step trains alone: it may be the one that kills
LOOK_AGAIN = 1.0  # seconds between looks at tuning runs that others work on

LoadModel = Callable[..., LoadedModel]


@dataclass
class Worker:
    """Takes the slots of a plan."""

    plan: Plan
    slots: Sequence[Slot]
    placing: Mapping[str, Any]
    tell: Callable[..., None]
    retry: bool = False  # also take runs that failed
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
                kin, size = self._kin(now)
                group = gathered.setdefault(kin, {})
                group[str(now.identity)] = slot
                if len(group) >= size:
                    run(gathered.pop(kin))
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
        again = self.retry and now.state in FAILED and now.identity not in tried
        if now.state == "done" and slot.cell is not None and now.record is not None:
            choice = states.choice(slot.cell)  # a larger budget may have chosen the same: its record shall say so
            again = choice is not None and choice.tuning != now.record.tuning
        if again or not (now.state in OVER or now.identity is None or now.state == "running"):
            return dataclasses.replace(now, state=TAKE)
        return now

    def _kin(self, now: SlotState) -> tuple[str, int]:
        """A text that runs of one group share, and how many of them make a group."""
        alone = str(now.identity), 1
        if self.group_size == 1 or (now.record is not None and _deaths(now.record) >= SUSPECT):
            return alone
        try:
            config = self.plan.configuration(str(now.identity), self.placing)
        except SdsbenchError:  # told when it is run
            return alone
        kin = kinship(config)
        return alone if kin is None else (kin, group_size(self.group_size, config))

    def _others_tune(self, slots: Iterable[Slot]) -> bool:
        """Whether some slot waits for tuning runs that living processes work on."""
        states = States(self.plan, root_of(self.plan, self.placing))
        waiting = {slot.cell for slot in slots if states.of(slot).state == "waiting"}
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
        base = OneBase(self.weights) if len(group) > 1 else None
        taken = [
            Taken(identity, self._stages(group[identity], now, base or self.weights, stop), self.tell)
            for identity, now in states.items()
            if now.state == TAKE
        ]
        for run in taken:
            run.go_on()
        training = {run.member: run for run in taken if run.member is not None}
        if base is not None:
            train_side_by_side(list(training), base, lambda member, error: training[member].end(error), _say)
        for run in taken:
            while run.member is not None:
                run.go_on()
        for run in taken:
            if isinstance(run.error, Interrupted | DiskRefuses):
                raise run.error
        kept = {run.identity for run in taken if isinstance(run.error, Owned)}
        kept |= {identity for identity, now in states.items() if now.state != TAKE and now.state not in OVER}
        return [group[identity] for identity in group if identity in kept]

    def _stages(self, slot: Slot, now: SlotState, load_model: LoadModel, stop: StopRequest) -> Stages:
        """The stages of one run of the plan."""
        stop.raise_if_received("it had not begun")
        root, identity = root_of(self.plan, self.placing), str(now.identity)
        config = self.plan.configuration(identity, self.placing)
        if now.record is not None and _deaths(now.record) >= self.deaths:
            return self._give_up(root / identity, config, identity)
        choice = States(self.plan, root).choice(slot.cell) if slot.cell is not None else None
        around = Surroundings(stop, load_model, choice.tuning if choice else None, self.lost_as)
        return (yield from stages(config, _say, around))

    def _give_up(self, folder: Path, config: RunConfig, identity: str) -> Record:
        """Record a run that kills its processes (native code, the out-of-memory killer) as failed."""
        with disk_errors(folder.parent), owned(folder):
            keeper = Keeper(folder, config, identity, _say, self.lost_as)
            keeper.give_up(
                f"its process died {self.deaths} times at step {keeper.record.attempts[-1].from_step} without an error "
                "(killed, or a crash in native code)"
            )
            return keeper.record


class Taken:
    """A run that a worker has taken, driven stage by stage. What ends it is told, and kept in `error`."""

    def __init__(self, identity: str, stages: Stages, tell: Callable[..., None]) -> None:
        self.identity, self._stages, self._tell = identity, stages, tell
        self.member: Member | None = None  # set while its training waits or goes on
        self.error: Exception | None = None
        tell("take", run=identity)

    def go_on(self) -> None:
        """To its training, or from there to its end."""
        self._drive(lambda: next(self._stages))

    def end(self, error: Exception) -> None:
        """Its training, driven from outside, raised."""
        self._drive(lambda: self._stages.throw(error))

    def _drive(self, stage: Callable[[], Member]) -> None:
        self.member = None
        try:
            self.member = stage()
        except StopIteration as finished:
            self._tell("end", run=self.identity, status=finished.value.status, message="")
        except (Owned, DiskRefuses) as error:
            self.error = error
            self._tell("leave", run=self.identity)
        except SdsbenchError as error:
            self.error = error
            self._tell("end", run=self.identity, status=getattr(error, "kind", "failed"), message=str(error))
        except Exception as error:  # one failing run never stops a sweep; its record has the message
            self.error = error
            traceback.print_exc()
            self._tell("end", run=self.identity, status="failed", message=f"{type(error).__name__}: {error}")


def _deaths(record: Record) -> int:
    """How often in a row a process died at the same step."""
    count, step = 0, None
    for attempt in reversed(record.attempts):
        if attempt.status not in ("running", "killed") or (step is not None and attempt.from_step != step):
            break
        count, step = count + 1, attempt.from_step
    return count


def _say(text: str) -> None:
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
            Worker(plan, slots, placing, _tell, given.retry, given.deaths, given.lost_as, size).work(stop)
    except DiskRefuses as error:
        _say(f"sdsbench: {error}")
        _tell("disk", message=str(error))
        return DISK
    except SdsbenchError as error:
        _say(f"sdsbench: {error}")
        _tell("stopped", message=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
