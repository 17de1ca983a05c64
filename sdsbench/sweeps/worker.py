"""A worker process: takes runs of a plan, one after the other, until none is left that it may take.

    python -m sdsbench.sweeps.worker PLAN [--slots FILE] [--set KEY=JSON ...] [--retry] [--force]

Events are written to standard output as lines of JSON; messages of the runs, and whatever else prints, to standard
error. If a run fails, its record holds the error and the worker continues with the next run. Exit codes: 0 all its runs
are done, UNFINISHED (4) some are not, 3 the requested device does not work, DISK (74) the disk failed, 130 stopped by a
signal (state saved).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import click

from sdsbench.core.garbage_collection import importing

with importing():  # every worker is a process of its own and imports torch
    import torch

    from sdsbench.core.containment import require_plain
    from sdsbench.core.errors import DiskRefuses, Interrupted, Owned, SdsbenchError, Unavailable
    from sdsbench.core.files import disk_errors
    from sdsbench.core.lock import owned, owner_lives
    from sdsbench.core.record import Record
    from sdsbench.core.texts import counted, number_of
    from sdsbench.models.shared_weights import SharedWeights
    from sdsbench.runs.configuration.schema import RunConfig
    from sdsbench.runs.keeper import RecordKeeper
    from sdsbench.runs.run_context import RunContext
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
    from sdsbench.sweeps.staged_run import StagedRun
    from sdsbench.sweeps.states import FAILED, FINISHED, OVER, STALE, SlotState, root_of, states_of
    from sdsbench.training.signals import StopRequest

RUNNABLE = "runnable"
SUSPECT = 2  # a run whose process died this often at the same step trains alone, as it may be the cause
POLL_SECONDS = 1.0  # interval of checks whether the tuning runs of other processes have ended


@dataclass
class Worker:
    """Runs the slots of a plan."""

    plan: Plan
    slots: Sequence[Slot]
    placing: Mapping[str, Any]
    emit: Callable[..., None]  # sends an event to the process that started the worker
    retry: bool = False  # also take runs that failed
    force: bool = False  # also take runs whose code or base weights have changed since
    deaths: int = 5  # a run whose process died this often at the same step is recorded as failed
    lost_as: Literal["killed", "node_failure"] = "killed"  # status of attempts whose process died without recording one
    group_size: int | str = 1  # number of runs that train side by side, or AUTO
    weights: SharedWeights = field(default_factory=SharedWeights)

    def work(self, stop: StopRequest) -> None:
        """Run slots until none is left to take. Raises Interrupted and DiskRefuses; other errors end only their run."""
        left = list(self.slots)
        tried: set[str] = set()
        while left:
            left, progress = self._pass(left, stop, tried)
            if left and not progress:
                if self._tuning_elsewhere(left):
                    time.sleep(POLL_SECONDS)
                elif not self._newly_runnable(left, tried):
                    return
                stop.raise_if_received("no run was in progress")

    def _pass(self, slots: Sequence[Slot], stop: StopRequest, tried: set[str]) -> tuple[list[Slot], bool]:
        """Go through the slots once; returns those that wait for tuning or another process, and whether any was run."""
        left: list[Slot] = []
        progress = False
        gathered: dict[str, dict[str, Slot]] = {}  # group key -> runs by id, until the group is complete

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
        """Number of this worker's slots that are not finished, by state."""
        states = states_of(self.plan, self.placing)
        counts = states.counts_of(map(states.of, self.slots))
        return {state: count for state, count in counts.items() if state not in FINISHED}

    def _current_state(self, slot: Slot, tried: Set[str]) -> SlotState:
        """The current state of a slot, replaced by RUNNABLE if this worker may run it."""
        states = states_of(self.plan, self.placing)
        now = states.of(slot)
        again = (self.retry and now.state in FAILED) or (self.force and now.state == STALE)
        again = again and now.identity not in tried
        if now.state == "done" and slot.cell is not None and now.record is not None:
            choice = states.choice(slot.cell)  # if a larger budget chose the same value, the record needs its tuning
            again = choice is not None and choice.tuning != now.record.tuning
        if again or not (now.state in (*OVER, "waiting", "running") or now.identity is None):
            return dataclasses.replace(now, state=RUNNABLE)
        return now

    def _group_of(self, now: SlotState) -> tuple[str, int]:
        """(key that is equal for runs that may train as a group, number of runs in a complete group)."""
        alone = str(now.identity), 1
        if self.group_size == 1 or (now.record is not None and _deaths(now.record, self.lost_as) >= SUSPECT):
            return alone
        try:
            config = self.plan.configuration(str(now.identity), self.placing)
        except SdsbenchError:  # raised again when the run is prepared
            return alone
        key = group_key(config)
        return alone if key is None else (key, group_size(self.group_size, config))

    def _tuning_elsewhere(self, slots: Iterable[Slot]) -> bool:
        """Whether a slot waits for tuning runs that other living processes work on."""
        states = states_of(self.plan, self.placing)
        waiting = {slot.cell or slot.extends for slot in slots if states.of(slot).state == "waiting"}
        running = (
            owner_lives(states.root / identity)  # a process locks a run before the record says that it is running
            for cell in waiting
            for row in self.plan.manifest.cells[str(cell)].tuning
            for identity in row
        )
        return any(running)

    def _newly_runnable(self, slots: Iterable[Slot], tried: Set[str]) -> bool:
        """Whether a slot that this worker has not tried can run: the run that it waited for may have ended just now."""
        states = (self._current_state(slot, tried) for slot in slots)
        return any(now.state == RUNNABLE and now.identity not in tried for now in states)

    def _run(self, group: Mapping[str, Slot], stop: StopRequest, tried: set[str]) -> list[Slot]:
        """Run slots, given by run id, side by side if there are several; returns those that other processes own.

        Raises Interrupted and DiskRefuses only after every run of the group has ended or been released.
        """
        states = {
            identity: self._current_state(slot, tried) for identity, slot in group.items()
        }  # before any lock is held
        tried.update(group)
        base = SharedBase(self.weights) if len(group) > 1 else None
        with ExitStack() as held:
            runs = [
                held.enter_context(StagedRun(identity, self.emit))
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

    def _prepare(self, run: StagedRun, slot: Slot, now: SlotState, base: SharedBase | None, stop: StopRequest) -> None:
        """Prepare one run for training; a run that keeps killing its processes is recorded as failed instead."""
        root = root_of(self.plan, self.placing)
        try:
            stop.raise_if_received("it had not begun")
            config = self.plan.configuration(run.identity, {**self.placing, "force": bool(now.changed)})
        except SdsbenchError as error:
            run.fail(error)
            return
        if now.record is not None and _deaths(now.record, self.lost_as) >= self.deaths:
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


def _deaths(record: Record, lost_as: str) -> int:
    """Number of the latest attempts in a row whose process died at the same step.

    `lost_as` is the status of an attempt that is still marked `running`. Failures of the machine between these attempts
    are not counted: they are not caused by the run.
    """
    count, step = 0, None
    for attempt in reversed(record.attempts):
        status = lost_as if attempt.status == "running" else attempt.status
        if status not in ("killed", "node_failure") or (step is not None and attempt.from_step != step):
            break
        count, step = count + (status == "killed"), attempt.from_step
    return count


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _emit(events: TextIO, event: str, **facts: Any) -> None:
    try:
        print(json.dumps({"event": event, **facts}), file=events, flush=True)
    except BrokenPipeError:
        raise Interrupted("the sweep that started this worker is gone") from None


def require_working_gpu() -> None:
    """Raise Unavailable if CUDA is missing or does not work, before a run fails because of it or trains elsewhere."""
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
@click.option("--slots", "chosen", type=click.Path(path_type=Path), help="JSON list of slot keys; default: all slots.")
@click.option("--offset", default=0, help="Start at this slot (times the group size); the skipped slots come last.")
@click.option("--set", "settings", multiple=True, metavar="KEY=JSON", help="The value of a placing key.")
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
    emit = functools.partial(_emit, sys.stdout)
    try:
        with redirect_stdout(sys.stderr), StopRequest() as stop:  # what a run or a plugin prints is no event
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
            worker = Worker(plan, slots[first:] + slots[:first], placing, emit, retry, force, deaths, lost_as, size)
            worker.work(stop)
    except DiskRefuses as error:
        _log(f"sdsbench: {error}")
        emit("disk", message=str(error))
        sys.exit(DISK)
    except KeyboardInterrupt:  # a second Ctrl-C; it is already in the record of the run in progress
        _log("sdsbench: interrupted")
        sys.exit(Interrupted.exit_code)
    except SdsbenchError as error:
        _log(f"sdsbench: {error}")
        if not isinstance(error, Interrupted):
            emit("refused", message=str(error))
        sys.exit(error.exit_code)
    if unfinished := worker.unfinished():
        _log(f"sdsbench: not done of {number_of(len(slots), 'run')}: {counted(unfinished)}")
        sys.exit(UNFINISHED)


if __name__ == "__main__":
    main()
