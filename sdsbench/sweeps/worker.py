"""One process that takes runs of a plan, one after the other, until none is left that it may take.

    python -m sdsbench.sweeps.worker PLAN [--slots FILE] [--set KEY=JSON ...] [--retry]

What happens is told on standard output as lines of JSON (`events` below), what runs say goes to standard error. A run
that fails leaves its record and the worker goes on. Exit codes: 0 nothing left to take, 130 stopped by a signal (state
saved), 74 the disk refuses.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sdsbench.configuration.schema import RunConfig
from sdsbench.errors import DiskRefuses, Interrupted, Owned, SdsbenchError
from sdsbench.models.shared import SharedWeights
from sdsbench.records.files import disk_errors
from sdsbench.records.keeper import Keeper
from sdsbench.records.lock import owned
from sdsbench.records.schema import Record
from sdsbench.run import Surroundings, execute
from sdsbench.sweeps.plan import Plan, Slot, read
from sdsbench.sweeps.pool import DISK
from sdsbench.sweeps.states import OVER, States, root_of
from sdsbench.training.signals import StopRequest

LOOK_AGAIN = 1.0  # seconds between looks at tuning runs that others work on


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
        left, progress = [], False
        for slot in slots:
            stop.raise_if_received("no run was in progress")
            now = States(self.plan, root_of(self.plan, self.placing)).of(slot)
            again = self.retry and now.state in ("failed", "oom") and now.identity not in tried
            if now.state in OVER and not again:
                continue
            if now.identity is None or now.state == "running":
                left.append(slot)
                continue
            tried.add(now.identity)
            try:
                self._run(slot, now.identity, now.record, stop)
                progress = True
            except Owned:
                left.append(slot)
        return left, progress

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

    def _run(self, slot: Slot, identity: str, record: Record | None, stop: StopRequest) -> None:
        root = root_of(self.plan, self.placing)
        tuning = None
        if slot.cell is not None:
            choice = States(self.plan, root).choice(slot.cell)
            tuning = choice.tuning if choice else None
        self.tell("take", run=identity)
        try:
            config = self.plan.configuration(identity, self.placing)
            if record is not None and _deaths(record) >= self.deaths:
                record = self._give_up(root / identity, config, identity)
            else:
                around = Surroundings(stop, self.weights, tuning, self.lost_as)
                record = execute(config, _say, around)
        except (Owned, DiskRefuses):
            self.tell("leave", run=identity)
            raise
        except Interrupted as error:
            self.tell("end", run=identity, status=error.kind, message=str(error))
            raise
        except SdsbenchError as error:
            self.tell("end", run=identity, status=getattr(error, "kind", "failed"), message=str(error))
            return
        except Exception as error:  # one failing run never stops a sweep; its record has the message
            traceback.print_exc()
            self.tell("end", run=identity, status="failed", message=f"{type(error).__name__}: {error}")
            return
        self.tell("end", run=identity, status=record.status if record else "failed", message="")

    def _give_up(self, folder: Path, config: RunConfig, identity: str) -> Record:
        """Record a run that kills its processes (native code, the out-of-memory killer) as failed."""
        with disk_errors(folder.parent), owned(folder):
            keeper = Keeper(folder, config, identity, _say, self.lost_as)
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
    parser.add_argument("--first", type=int, default=0, help="start at this slot and go round")
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
            first = given.first % max(1, len(slots))
            placing = {key: json.loads(value) for key, _, value in (word.partition("=") for word in given.set)}
            slots = slots[first:] + slots[:first]
            Worker(plan, slots, placing, _tell, given.retry, given.deaths, given.lost_as).work(stop)
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
