"""Runs as tables see them: a record, its folder, and every value under one flat name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sdsbench.core import step_log
from sdsbench.core.collection import collection_paused
from sdsbench.core.errors import DamagedFile, Refused, Unavailable
from sdsbench.core.record import Record
from sdsbench.core.spelling import nearest
from sdsbench.core.texts import some_of
from sdsbench.results import setting
from sdsbench.results.bundles.opened import shown
from sdsbench.results.frames import DEFAULT, Copy, Folders, Found, read_all, run_row, samples_of

SHOWN = 12  # values that a message lists


@dataclass(frozen=True, eq=False)
class Run:
    folder: Path
    record: Record
    flat: Mapping[str, Any]
    origin: str = ""  # the folder or bundle that it was found in
    copies: Sequence[Copy] = ()  # the same run in other places
    problems: dict[str, str] = field(default_factory=dict)  # its files that could not be read, and why

    @property
    def id(self) -> str:
        return self.record.run_id

    @cached_property
    def naming(self) -> Mapping[str, Any]:
        """`flat` without the keys that had no effect on this run: two runs that differ in these alone are alike."""
        inert = {f"config.{key}" for key in self.record.inert}
        return {key: value for key, value in self.flat.items() if key not in inert} if inert else self.flat

    @cached_property
    def column_facts(self) -> Mapping[str, Any]:
        """What must be equal between methods (results/setting.py)."""
        return setting.column_facts(self.record, self.naming)

    @cached_property
    def row_facts(self) -> Mapping[str, Any]:
        return setting.row_facts(self.record, self.flat)

    def steps(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind of its step log; none, and a problem, where the log cannot be read."""
        try:
            return [line for line in step_log.read(self.folder / "metrics.jsonl") if line["kind"] == kind]
        except DamagedFile as error:
            self.problems["metrics.jsonl"] = shown(str(error))
            return []

    def answers(self, evaluation: str, stage: str) -> list[dict[str, Any]]:
        """Its stored answers to an evaluation; none where none are stored, and a problem where they cannot be read."""
        try:
            return samples_of(self.folder, evaluation, stage)
        except Unavailable:
            return []
        except DamagedFile as error:
            self.problems[f"samples of {evaluation} ({stage})"] = shown(str(error))
            return []

    def fits(self, where: Mapping[str, Any]) -> bool:
        """Whether every key has the wanted value, or one of a tuple of values."""
        return all(
            self.flat.get(key) in wanted if isinstance(wanted, tuple | frozenset) else self.flat.get(key) == wanted
            for key, wanted in where.items()
        )

    @property
    def embedded(self) -> bool:
        """Whether any of its data was made by this package."""
        provenance = self.record.provenance
        return provenance is not None and any(used.source == "embedded" for used in provenance.data)


@collection_paused()
def load(
    folders: Folders = DEFAULT, where: Sequence[str] = (), plan: str | None = None
) -> tuple[list[Run], dict[str, str]]:
    """The runs of the folders, of one plan if it is named, narrowed by `key=value` texts; and what is wrong with
    damaged ones.

    Keys are written as in an override (`eval.limit=64`, `method=lora`) or as load_runs names them. Raises Refused for
    a key that no run has, and where nothing is left; Unavailable for a plan that is not there; DamagedFile where there
    are records and none can be read.
    """
    records, damaged = read_all(folders)
    if damaged and not records:
        raise DamagedFile(f"none of {len(damaged)} records can be read:\n" + "\n".join(list(damaged.values())[:SHOWN]))
    runs = []
    for found in records:
        try:
            runs.append(_run(found))
        except Exception as error:  # whatever is written there
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            damaged[found.record.run_id] = shown(f"{found.folder / 'record.json'}: values of another kind ({reason}).")
    if plan is not None:
        runs = _of_plan(runs, plan)
    for condition in where:
        runs = _narrowed(runs, condition)
    return runs, damaged


def problems_of(runs: Sequence[Run]) -> dict[str, str]:
    """Files of these runs that could not be read so far: {run and file: why}."""
    return {f"{run.id}, {what}": reason for run in runs for what, reason in run.problems.items()}


def _run(found: Found) -> Run:
    """A record with its flat values; raises what values of a wrong kind raise: here, not in the middle of a table."""
    record = found.record
    flat = run_row(found.folder, record) | {"data_source": _source(record), "origin": found.origin}
    run = Run(found.folder, record, flat, found.origin, tuple(found.copies))
    hash((*run.column_facts.values(), *run.row_facts.values(), record.method, record.rank))
    return run


def _of_plan(runs: Sequence[Run], name: str) -> list[Run]:
    from sdsbench.sweeps.plan import named

    planned = named(name).manifest.runs
    kept = [run for run in runs if run.id in planned]
    if not kept:
        raise Refused(f"--plan {name}: none of its {len(planned)} runs is among the {len(runs)} that were read.")
    return kept


def _narrowed(runs: Sequence[Run], condition: str) -> list[Run]:
    written, _, wanted = condition.partition("=")
    known = {name for run in runs for name in run.flat}
    key = next((name for name in (written, f"config.{written}") if name in known), None)
    if key is None:
        if not runs:
            return []
        advice = nearest(written, {name.removeprefix("config.") for name in known})
        raise Refused(f"--where {condition}: no run has the key {written}. {advice}".rstrip())
    kept = [run for run in runs if _equal(run.flat.get(key), wanted)]
    if not kept:
        values = sorted({str(run.flat.get(key)) for run in runs})
        raise Refused(f"--where {condition}: no run is left; {written} is {some_of(values, SHOWN)}.")
    return kept


def _equal(value: Any, wanted: str) -> bool:
    """Whether a value is the one written: 1e-3 is 0.001, null is None, true is True."""
    if value is None or isinstance(value, bool):
        return wanted.lower() in {"None": ("none", "null")}.get(str(value), (str(value).lower(),))
    if isinstance(value, int | float):
        try:
            return float(wanted) == value
        except ValueError:
            return False
    return str(value) == wanted


def _source(record: Record) -> str:
    """Where a run's data came from: hub, local, embedded, or several joined by `+`."""
    return "+".join(sorted({used.source for used in record.provenance.data})) if record.provenance else "unknown"
