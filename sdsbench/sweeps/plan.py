"""A plan: a sweep composed once into a frozen folder. Nothing in it is read from conf/ again.

    results/plans/<name>/
      manifest.json        what the plan holds, with checksums (Manifest below)
      runs/<run id>.json   the resolved configuration of one run
      submissions/         what was sent to SLURM (slurm.py)
      logs/                output of workers

Runs are only ever added (planning again with more values); run ids come from content, so a run that is done stays done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from sdsbench.core import plugins
from sdsbench.core.allowed_names import CellKey, Name, RunId, require_printable
from sdsbench.core.console import print_wrapped
from sdsbench.core.containment import contained
from sdsbench.core.errors import ConfigError, DamagedFile, Unavailable
from sdsbench.core.files import disk_errors, sync_folder, write_atomic
from sdsbench.core.limits import MANIFEST
from sdsbench.core.lock import owned
from sdsbench.core.reading import FileContent, first_fault, parse_json, read_bytes
from sdsbench.runs.configuration.compose import from_tree
from sdsbench.runs.configuration.environment import with_environment
from sdsbench.runs.configuration.identity import PLACING, placed, run_id, unplaced
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.sweeps.placing import refused

PLANS = Path("results/plans")


class PlannedRun(FileContent):
    role: Literal["run", "tuning", "final"]  # final: one of a cell's candidates; the tuned value decides which one runs
    point: dict[str, str]  # the overrides that make this run
    sha256: str  # of its file


class TunedCell(FileContent):
    """One method (rank, task, ...) with a tuned value: the runs that choose it, and the runs that follow."""

    point: dict[str, str]  # without seed and tuned value
    key: str
    grid: list[float]  # ascending where it may be extended, with every value that it may be extended to
    seeds: list[int]
    tuning: list[list[RunId]]  # [grid point][seed] -> run id
    final: dict[str, list[RunId]]  # seed -> [grid point] -> run id
    extend: int = 0  # how many values at each end of `grid` are tried only where the best is the last one

    @property
    def declared(self) -> range:
        """Positions of the values that are tried in any case."""
        return range(self.extend, len(self.grid) - self.extend)


class Manifest(FileContent):
    schema_version: Literal[2] = 2
    name: Name
    description: str
    git_commit: str | None
    placing: dict[str, Any]  # key of identity.PLACING -> value
    runs: dict[RunId, PlannedRun]  # in order
    cells: dict[CellKey, TunedCell]
    checksum: str = ""


@dataclass(frozen=True)
class Slot:
    """A place in a plan that ends with one finished run: a run, or a seed of a tuned cell."""

    key: str  # run id, or <cell>:<seed>
    cell: str | None = None
    seed: str | None = None
    extends: str | None = None  # of a tuning run beyond the declared grid: the cell that may need it


@dataclass(frozen=True)
class Plan:
    """A frozen folder, opened."""

    folder: Path
    manifest: Manifest
    only: frozenset[str] | None = None  # keys of the slots that count; None: all

    def restricted_to(self, keys: Iterable[str]) -> Plan:
        """The plan as if it held no other slots."""
        return replace(self, only=frozenset(keys))

    def slots(self) -> Iterator[Slot]:
        """Everything to be run, in order, tuning first."""
        return (slot for slot in self._all_slots() if self.only is None or slot.key in self.only)

    def _all_slots(self) -> Iterator[Slot]:
        beyond = self._beyond()
        for identity, run in self.manifest.runs.items():
            if run.role != "final":
                yield Slot(identity, extends=beyond.get(identity))
        for key, cell in self.manifest.cells.items():
            for seed in cell.final:
                yield Slot(f"{key}:{seed}", key, seed)

    def _beyond(self) -> dict[str, str]:
        """Tuning runs that only an extended grid needs -> their cell."""
        cells = self.manifest.cells.items()
        needed = {identity for _, cell in cells for position in cell.declared for identity in cell.tuning[position]}
        found = {identity: key for key, cell in cells for row in cell.tuning for identity in row}
        return {identity: key for identity, key in found.items() if identity not in needed}

    @cached_property
    def placing(self) -> dict[str, Any]:
        """Where and how its runs happen, with this machine's environment where the plan refers to it.

        Raises DamagedFile for a key that places no run, or a value that it does not take.
        """
        found = with_environment(self.manifest.placing)
        for key in {"output_root": None, **found}:
            wanted = refused(key, found.get(key)) if key in PLACING else f"keys {', '.join(PLACING)}"
            if wanted:
                where = f"{self.folder / 'manifest.json'}: placing: {key}={str(found.get(key))[:100]!r}"
                raise DamagedFile(f"{where}: accepted: {wanted}. {_AGAIN}")
        return found

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Keys that differ between the runs."""
        points = [run.point for run in self.manifest.runs.values()]
        keys = dict.fromkeys(key for point in points for key in point)
        return tuple(key for key in keys if len({point.get(key) for point in points}) > 1)

    def difference(self, identity: str) -> str:
        """What sets a run apart from the others: `method=lora seed=1`."""
        point = self.manifest.runs[identity].point
        return " ".join(f"{key}={point[key]}" for key in self.varying if key in point)

    def configuration(self, identity: str, placing: Mapping[str, Any]) -> RunConfig:
        """The frozen configuration of a run, placed here; the base's own weights are kept of no tuning run.

        Raises DamagedFile where its file is not what was planned, Refused where a plugin came with the plan.
        """
        path = self.folder / "runs" / f"{identity}.json"
        try:
            content = read_bytes(path, MANIFEST, below=self.folder)
        except DamagedFile as error:
            raise DamagedFile(f"{error} {_AGAIN}") from None
        if hashlib.sha256(content).hexdigest() != self.manifest.runs[identity].sha256:
            raise DamagedFile(f"{path}: it does not match the checksum in manifest.json. {_AGAIN}")
        tree = self._tree(content, path)
        placing = {"force": False} | self.placing | dict(placing)
        if self.manifest.runs[identity].role == "tuning" and placing.get("train.save") == "all":
            placing["train.save"] = "adapter"  # a whole model a rate and seed, which nobody will load
        modules = placing.get("plugins")
        named = list(map(str, modules)) if isinstance(modules, list) else []
        plugins.refuse_brought(f"plan {self.manifest.name}", named, self.folder)
        config = from_tree(placed(unplaced(tree), placing))
        if run_id(config) != identity:
            raise DamagedFile(f"{path}: this code names the run {run_id(config)}: the keys of a run changed. {_AGAIN}")
        return config

    @staticmethod
    def _tree(content: bytes, path: Path) -> dict[str, Any]:
        tree = parse_json(content, path)
        if not isinstance(tree, dict):
            raise DamagedFile(f"{path}: not a configuration. {_AGAIN}")
        return tree


_AGAIN = "Plan again (the same command); runs that are done stay done."


def all_plans() -> list[Path]:
    """The folders of the plans in PLANS, by name."""
    return sorted(path.parent for path in PLANS.rglob("manifest.json"))


def find(name: str) -> Path:
    """The folder of a plan given by path or by name. Raises Unavailable."""
    require_printable("plan", Path(name))
    for folder in (Path(name), PLANS / name):
        if (folder / "manifest.json").is_file():
            return folder
    have = [path.relative_to(PLANS).as_posix() for path in all_plans()]
    raise Unavailable(f"plan {name!r}: no such folder with a manifest.json; in {PLANS}: {', '.join(have) or 'none'}.")


def is_plan(name: str) -> bool:
    """Whether a path or a name is that of a plan."""
    return any((folder / "manifest.json").is_file() for folder in (Path(name), PLANS / name))


def named(name: str) -> Plan:
    """The plan of a path or a name. Raises what `find` and `read` do."""
    return read(find(name))


def read(folder: Path) -> Plan:
    """Open a plan. Raises DamagedFile where its manifest does not match its schema or checksum."""
    path = folder / "manifest.json"
    try:
        manifest = Manifest.model_validate_json(read_bytes(path, MANIFEST, below=folder))
    except ValidationError as error:
        raise DamagedFile(f"{path}: not a manifest of schema version 2: {first_fault(error)}. {_AGAIN}") from None
    if manifest.checksum != manifest.seal():
        raise DamagedFile(f"{path}: its content does not match its checksum. {_AGAIN}")
    return Plan(folder, manifest)


def write(folder: Path, manifest: Manifest, texts: Mapping[str, str]) -> tuple[Plan, int]:
    """Freeze a plan of run id -> configuration as JSON, or add to the plan that is there.

    One whose runs this code names otherwise (keys came or went since) is set aside as FOLDER.1, which is said.
    Returns the plan and the number of runs that are new. Raises DamagedFile (the plan that is there), DiskRefuses,
    ConfigError (a folder whose name does not print).
    """
    require_printable("--folder", folder.absolute())
    with disk_errors(folder.parent):
        if not folder.exists():
            _write_new(folder, manifest, texts)
            return read(folder), len(texts)
        with owned(folder):
            there = read(folder)
            old = there.manifest
            if not _of_other_keys(there, manifest):
                merged = _merged(old, manifest)
                for identity in merged.runs.keys() - old.runs.keys():  # a manifest never names a file that is not there
                    write_atomic(contained(folder, "runs", f"{identity}.json"), texts[identity])
                _write_manifest(folder, merged)
                return read(folder), len(merged.runs) - len(old.runs)
            numbered = (folder.with_name(f"{folder.name}.{number}") for number in count(1))
            aside = next(path for path in numbered if not path.exists())
            os.rename(folder, aside)
            print_wrapped(f"{folder} is of a version with other keys; it is kept as {aside}", stderr=True)
        _write_new(folder, manifest, texts)
        return read(folder), len(texts)


def _of_other_keys(there: Plan, new: Manifest) -> bool:
    """Whether a run that is asked for is there under an id that this code does not give it.

    One whose values were changed in between (in a YAML of the user's) has its own id by right, and stays.
    """

    def what(run: PlannedRun) -> tuple[str, frozenset[tuple[str, str]]]:
        return run.role, frozenset(run.point.items())

    asked = {what(run): identity for identity, run in new.runs.items()}
    others = [identity for identity, run in there.manifest.runs.items() if asked.get(what(run), identity) != identity]
    return any(not _is_named(there, identity) for identity in others)


def _is_named(there: Plan, identity: str) -> bool:
    try:
        there.configuration(identity, {})
    except (ConfigError, DamagedFile):
        return False
    return True


def _write_new(folder: Path, manifest: Manifest, texts: Mapping[str, str]) -> None:
    """Everything in a folder beside, then one rename. Single files are not flushed to disk: checksums find a loss."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / "runs").mkdir(parents=True)
        for identity, text in texts.items():
            (temporary / "runs" / f"{identity}.json").write_text(text, encoding="utf-8")
        _write_manifest(temporary, manifest)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomic(folder / "manifest.json", sealed_text(manifest))


def sealed_text(manifest: Manifest) -> str:
    """The content of manifest.json, with its checksum."""
    return manifest.model_copy(update={"checksum": manifest.seal()}).model_dump_json(indent=1) + "\n"


def _merged(old: Manifest, new: Manifest) -> Manifest:
    """The old runs in their order, then the new ones; seeds are added to cells.

    A cell that is planned again with another budget takes the old one's place: each is tuned once.
    """
    runs = dict(old.runs)
    for identity, run in new.runs.items():
        if identity not in runs:
            runs[identity] = run
        elif runs[identity].role == "final":
            runs[identity] = runs[identity].model_copy(update={"role": run.role})
    tuned = [(cell.point, cell.key) for cell in new.cells.values()]
    cells = {key: cell for key, cell in old.cells.items() if key in new.cells or (cell.point, cell.key) not in tuned}
    for key, cell in new.cells.items():
        final = cells[key].final | cell.final if key in cells else cell.final
        cells[key] = cell.model_copy(update={"final": final})
    return new.model_copy(update={"runs": runs, "cells": cells})
