"""One process that takes runs of a plan, one after the other, until none is left that it may take.

    python -m sdsbench.sweeps.worker PLAN [--slots FILE] [--set KEY=JSON ...] [--retry] [--force]

What happens is written to standard output as lines of JSON, what runs say goes to standard error. A run that fails
leaves its record and the worker goes on. Exit codes: 0 all its runs are done, UNFINISHED (4) some are not, 3 the device
that was asked for does not work, 74 the disk refuses, 130 stopped by a signal (state saved).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from sdsbench.core.collection import importing

with importing():  # a worker loads torch anew
    import torch

    from sdsbench.core.containment import require_plain
    from sdsbench.core.errors import DiskRefuses, Interrupted, Owned, SdsbenchError, Unavailable
    from sdsbench.core.files import disk_errors
    from sdsbench.core.lock import owned
    from sdsbench.core.record import Record
    from sdsbench.core.texts import counted
    from sdsbench.models.shared_weights import SharedWeights
    from sdsbench.runs.configuration.schema import RunConfig
    from sdsbench.runs.keeper import RecordKeeper
    from sdsbench.runs.run_context import RunContext
    from sdsbench.sweeps.active import DrivenRun
    from sdsbench.sweeps.group import (
        LARGEST,
        SharedBase,
        group_key,
        group_size,
        prepare_on_shared_base,
        train_side_by_side,
    )
    from sdsbench.sweeps.placing import AUTO, GROUP_SIZE
    from sdsbench.sweeps.plan import Plan, Slot, read
    from sdsbench.sweeps.pool import DISK, UNFINISHED
    from sdsbench.sweeps.states import FAILED, FINISHED, OVER, STALE, SlotState, root_of, states_of
    from sdsbench.training.signals import StopRequest

RUNNABLE = "runnable"
SUSPECT = 2  # a run whose process died this often at one step trains alone: it may be the one that kills
POLL_SECONDS = 1.0  # between looks at tuning runs that others work on


@dataclass
class Worker:
    """Takes the slots of a plan."""

    plan: Plan
    slots: Sequence[Slot]
    placing: Mapping[str, Any]
    emit: Callable[..., None]  # an event for whoever started the worker
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
                if not self._tuning_elsewhere(left):
                    return
                time.sleep(POLL_SECONDS)
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
            now = self._current_state(slot, tried)
            if now.state == RUNNABLE:
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

    def unfinished(self) -> dict[str, int]:
        """How many of its slots are not done, by state."""
        states = states_of(self.plan, self.placing)
        counts = states.counts_of(map(states.of, self.slots))
        return {state: count for state, count in counts.items() if state not in FINISHED}

    def _current_state(self, slot: Slot, tried: Set[str]) -> SlotState:
        """Where a slot stands now; the state is RUNNABLE where this worker may run it."""
        states = states_of(self.plan, self.placing)
        now = states.of(slot)
        again = (self.retry and now.state in FAILED) or (self.force and now.state == STALE)
        again = again and now.identity not in tried
        if now.state == "done" and slot.cell is not None and now.record is not None:
            choice = states.choice(slot.cell)  # a larger budget may have chosen the same: its record shall say so
            again = choice is not None and choice.tuning != now.record.tuning
        if again or not (now.state in (*OVER, "waiting", "running") or now.identity is None):
            return dataclasses.replace(now, state=RUNNABLE)
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

    def _tuning_elsewhere(self, slots: Iterable[Slot]) -> bool:
        """Whether some slot waits for tuning runs that living processes work on."""
        states = states_of(self.plan, self.placing)
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
        states = {
            identity: self._current_state(slot, tried) for identity, slot in group.items()
        }  # before any lock is held
        tried |= group.keys()
        base = SharedBase(self.weights) if len(group) > 1 else None
        with ExitStack() as held:
            runs = [
                held.enter_context(DrivenRun(identity, self.emit))
                for identity, now in states.items()
                if now.state == RUNNABLE
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
        kept |= {identity for identity, now in states.items() if now.state != RUNNABLE and now.state not in OVER}
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
        choice = states_of(self.plan, self.placing).choice(slot.cell) if slot.cell is not None else None
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


def _emit(event: str, **facts: Any) -> None:
    try:
        print(json.dumps({"event": event, **facts}), flush=True)
    except BrokenPipeError:
        raise Interrupted("the sweep that started this worker is gone") from None


def require_working_gpu() -> None:
    """Raises Unavailable where CUDA is not there or does not answer: no run shall fail for it, or train elsewhere."""
    try:
        torch.zeros(1, device="cuda")
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise Unavailable(
            f"device=cuda: this worker's GPU cannot be used ({reason}), so it takes no run. `nvidia-smi` on this "
            "machine says more; device=cpu (slurm=cpu) asks for none."
        ) from None


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--slots", "chosen", type=click.Path(path_type=Path), help="JSON list of slot keys; default: the plan's.")
@click.option("--offset", default=0, help="Leave so many slots (groups) to others, and go round.")
@click.option("--set", "settings", multiple=True, metavar="KEY=JSON", help="A placing key.")
@click.option("--retry", is_flag=True, help="Also take runs that failed.")
@click.option("--force", is_flag=True, help="Also take runs whose code or base weights have changed.")
@click.option("--deaths", default=Worker.deaths)
@click.option("--lost-as", type=click.Choice(["killed", "node_failure"]), default="killed")
def main(
    folder: Path,
    chosen: Path | None,
    offset: int,
    settings: Sequence[str],
    retry: bool,
    force: bool,
    deaths: int,
    lost_as: Literal["killed", "node_failure"],
) -> None:
    try:
        with StopRequest() as stop:
            plan = read(folder)
            if chosen:
                plan = plan.restricted_to(json.loads(chosen.read_text()))
            slots = list(plan.slots())
            placing: dict[str, Any] = {
                key: json.loads(value) for key, _, value in (word.partition("=") for word in settings)
            }
            if placing.get("device") == "cuda":
                require_working_gpu()
            size = placing.pop(GROUP_SIZE, 1)
            first = offset * (LARGEST if size == AUTO else size) % max(1, len(slots))
            worker = Worker(plan, slots[first:] + slots[:first], placing, _emit, retry, force, deaths, lost_as, size)
            worker.work(stop)
    except DiskRefuses as error:
        _log(f"sdsbench: {error}")
        _emit("disk", message=str(error))
        sys.exit(DISK)
    except KeyboardInterrupt:  # a second Ctrl-C; the run in progress says in its record how it ended
        _log("sdsbench: interrupted")
        sys.exit(Interrupted.exit_code)
    except SdsbenchError as error:
        _log(f"sdsbench: {error}")
        if not isinstance(error, Interrupted):
            _emit("refused", message=str(error))
        sys.exit(error.exit_code)
    if unfinished := worker.unfinished():
        _log(f"sdsbench: not done of {len(slots)} run(s): {counted(unfinished)}")
        sys.exit(UNFINISHED)


if __name__ == "__main__":
    main()
