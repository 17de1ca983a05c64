"""Where every slot of a plan stands, read from records and locks alone."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdsbench.core.errors import DamagedFile, SdsbenchError, TrainingFailed
from sdsbench.core.hashing import canonical_json
from sdsbench.core.lock import owner_lives
from sdsbench.core.reading import is_there
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.runs.origin import changed_parts
from sdsbench.sweeps.plan import Plan, PlannedRun, Slot
from sdsbench.sweeps.tuning import TunedChoice, choose, window

STATES = (
    "done", "running", "waiting", "not started", "stopped", "preempted", "timeout", "failed", "oom", "damaged",
    "impossible", "stale", "unneeded",
)  # fmt: skip
"""running: a living process has it. stopped: a process died in it. waiting: for tuning runs. impossible: no tuning run
of its cell succeeded. unneeded: it would extend a tuning grid whose best value lies inside. stale: its code or base
weights are not those of today (runs/origin.py). preempted and timeout go on from their checkpoint; failed and oom wait
for `retry`, stale for `sweep --force`."""
STALE = "stale"
FINISHED = ("done", "unneeded")
OVER = ("done", "failed", "oom", "impossible", "unneeded", STALE)
FAILED = ("failed", "oom")
"""States of runs that only a retry takes again."""
LOST = ("stopped", "preempted", "timeout", "oom")
"""States of runs that something outside them ended: another start, or a larger card, may end otherwise."""


@dataclass(frozen=True)
class SlotState:
    """One slot now. `identity` is None while tuning has not decided which run it is."""

    slot: Slot
    state: str
    identity: str | None
    run: PlannedRun | None
    record: Record | None
    changed: tuple[str, ...] = ()  # parts of what its record is made from that differ today

    @property
    def may_end_otherwise(self) -> bool:
        """Whether the same run, started again, may come to another end; not so where training itself failed (NaN)."""
        failure = self.record.failure if self.record else None
        by_training = failure is not None and failure.type == TrainingFailed.__name__
        return self.state in LOST or (self.state == "failed" and not by_training)


class States:
    """Reads each record once; make a new one to look again."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self.plan, self.root = plan, root
        self.damaged: dict[str, str] = {}
        self._records: dict[str, Record | None] = {}
        self._choices: dict[str, TunedChoice | None] = {}
        self._parts: dict[str, tuple[str, ...]] = {}

    def all(self) -> Iterator[SlotState]:
        """Every slot in the plan's order."""
        return map(self.of, self.plan.slots())

    def counts(self) -> dict[str, int]:
        """Slots that may be needed by state, in the order of STATES; states without slots are left out."""
        return self.counts_of(needed_at_most(self.plan, self.all()))

    @staticmethod
    def counts_of(slots: Iterable[SlotState]) -> dict[str, int]:
        """The same for slots that were read before."""
        found = collections.Counter(slot.state for slot in slots)
        return {state: found[state] for state in STATES if found[state]}

    def of(self, slot: Slot) -> SlotState:
        """One slot."""
        identity = slot.key
        if slot.extends is not None and not self._reached(slot.extends, identity):
            state = "waiting" if self.choice(slot.extends) is None else "unneeded"
            return SlotState(slot, state, identity, self.plan.manifest.runs[identity], None)
        if slot.cell is not None:
            choice = self.choice(slot.cell)
            if choice is None or choice.position is None:
                return SlotState(slot, "impossible" if choice else "waiting", None, None, None)
            identity = self.plan.manifest.cells[slot.cell].final[str(slot.seed)][choice.position]
        record = self.record(identity)
        state, changed = self._state(identity, record), self._changed(identity, record)
        if changed and state not in ("running", *FAILED):
            state = STALE
        return SlotState(slot, state, identity, self.plan.manifest.runs[identity], record, changed)

    def choice(self, cell: str) -> TunedChoice | None:
        """What tuning chose for a cell; None while it is undecided."""
        if cell not in self._choices:
            self._choices[cell] = choose(self.plan.manifest.cells[cell], self.record)
        return self._choices[cell]

    def _reached(self, cell: str, identity: str) -> bool:
        """Whether a tuning run beyond the declared grid is to be made."""
        tuned = self.plan.manifest.cells[cell]
        return any(identity in tuned.tuning[position] for position in window(tuned, self.record))

    def record(self, identity: str) -> Record | None:
        """A run's record; None where it has none or a damaged one (then `damaged` says what is wrong)."""
        if identity not in self._records:
            path = self.root / identity / "record.json"
            try:
                self._records[identity] = read_record(path) if is_there(path) else None
            except DamagedFile as error:
                self._records[identity] = None
                self.damaged[identity] = str(error)
        return self._records[identity]

    def _changed(self, identity: str, record: Record | None) -> tuple[str, ...]:
        """Parts of a record's origin that differ now; looked up once for runs that differ in seeds and rates alone."""
        if record is None or record.provenance is None:
            return ()
        used = {key: record.config.get(key) for key in ("model", "task", "data")}
        kind = canonical_json([record.method, used, record.provenance.code, record.provenance.weights.fingerprint])
        if kind not in self._parts:
            try:
                parts = changed_parts(self.plan.configuration(identity, {}), record)
            except SdsbenchError:  # told when the run is taken
                parts = []
            self._parts[kind] = tuple(parts)
        return self._parts[kind]

    def _state(self, identity: str, record: Record | None) -> str:
        if record is None:
            return "damaged" if identity in self.damaged else "not started"
        if record.status == "done" or not owner_lives(self.root / identity):
            return "stopped" if record.status == "running" else record.status
        return "running"


def states_of(plan: Plan, placing: Mapping[str, Any]) -> States:
    """Where the slots of a plan stand in the folder of its records."""
    return States(plan, root_of(plan, placing))


def root_of(plan: Plan, placing: Mapping[str, Any]) -> Path:
    """The folder of the plan's records."""
    return Path(placing.get("output_root") or plan.placing["output_root"])


def needed_at_most(plan: Plan, slots: Iterable[SlotState]) -> list[SlotState]:
    """The slots without those that cannot all be needed: a tuning grid grows at one of its ends alone (`window`).

    Of the runs beyond the declared grid of one cell, at most those of `tune.extend` values are kept.
    """
    slots = list(slots)
    room = collections.Counter({name: cell.extend * len(cell.seeds) for name, cell in plan.manifest.cells.items()})
    room.subtract(
        slot.slot.extends for slot in slots if slot.slot.extends and slot.state not in ("waiting", "unneeded")
    )
    kept = []
    for slot in slots:
        if slot.state == "waiting" and slot.slot.extends is not None:
            room[slot.slot.extends] -= 1
            if room[slot.slot.extends] < 0:
                continue
        kept.append(slot)
    return kept
