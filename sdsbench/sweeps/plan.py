"""A plan: the runs of a sweep, composed once and frozen in a folder. Later changes of conf/ do not affect it.

    results/plans/<name>/
      manifest.json        the runs and tuned cells of the plan, with checksums (class Manifest)
      runs/<run id>.json   the resolved configuration of one run
      submissions/         submissions to SLURM (slurm.py)
      logs/                output of workers

Planning again with more values only adds runs. A run's id is a hash of its content, so a finished run stays finished.
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

from pydantic import Field, ValidationError, model_validator

from sdsbench.core import plugins
from sdsbench.core.allowed_names import CellKey, Name, RunId, require_printable
from sdsbench.core.console import print_wrapped
from sdsbench.core.containment import folder_in
from sdsbench.core.errors import ConfigError, DamagedFile, Problem, Unavailable
from sdsbench.core.files import disk_errors, sync_folder, write_atomic
from sdsbench.core.limits import MANIFEST
from sdsbench.core.lock import owned
from sdsbench.core.reading import FileContent, first_fault, parse_json, read_bytes
from sdsbench.core.texts import number_of
from sdsbench.runs.configuration.compose import from_tree
from sdsbench.runs.configuration.environment import with_environment
from sdsbench.runs.configuration.identity import PLACING, placed, run_id, unplaced
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.sweeps.placing import refused

PLANS = Path("results/plans")
ANOTHER_NAME = "For other runs make a plan of their own: --name NAME."


class PlannedRun(FileContent):
    role: Literal["run", "tuning", "final"]  # final: runs only if tuning chooses its value of the tuned key
    point: dict[str, str]  # the overrides that define this run
    sha256: str  # of runs/<run id>.json


class TunedCell(FileContent):
    """One setting (method, rank, task ...) with a tuned key: its tuning runs, and final runs for every grid value."""

    point: dict[str, str]  # the setting's overrides, without seed and tuned key
    key: str  # the tuned key, such as train.lr
    grid: list[float]  # every value that may be tried, extensions included; ascending if `extend` is above 0
    seeds: list[int]
    tuning: list[list[RunId]]  # [grid point][seed] -> run id
    final: dict[str, list[RunId]]  # seed -> [grid point] -> run id
    extend: int = Field(0, ge=0)  # number of values at each end of `grid` that are tried only if the best lies there

    @model_validator(mode="after")
    def _fits(self) -> TunedCell:
        """Require a run for every value and seed, since readers of the cell find runs by position."""
        if len(self.grid) <= 2 * self.extend:
            raise ValueError(f"{len(self.grid)} values, of which {self.extend} at each end may not be needed")
        if len(self.tuning) != len(self.grid) or any(len(row) != len(self.seeds) for row in self.tuning):
            raise ValueError("tuning has not one run for each value and seed")
        if any(len(row) != len(self.grid) for row in self.final.values()):
            raise ValueError("final has not one run for each value")
        return self

    @property
    def declared(self) -> range:
        """Positions in `grid` of the values that are always tried."""
        return range(self.extend, len(self.grid) - self.extend)


class Manifest(FileContent):
    schema_version: Literal[2] = 2
    name: Name
    description: str
    git_commit: str | None
    placing: dict[str, Any]  # key of identity.PLACING -> value
    runs: dict[RunId, PlannedRun]  # in the plan's order
    cells: dict[CellKey, TunedCell]
    checksum: str = ""

    @model_validator(mode="after")
    def _check_runs_of_cells(self) -> Manifest:
        named = {one for cell in self.cells.values() for row in (*cell.tuning, *cell.final.values()) for one in row}
        if unknown := named - self.runs.keys():
            raise ValueError(f"a cell names run {min(unknown)}, which is not among the runs")
        return self


@dataclass(frozen=True)
class Slot:
    """A unit of work that ends with one finished run: a planned run, or one seed of a tuned cell."""

    key: str  # run id, or <cell>:<seed>
    cell: str | None = None
    seed: str | None = None
    extends: str | None = None  # for a tuning run outside the declared grid: the cell that may need it


@dataclass(frozen=True)
class Plan:
    """A plan that was read from its folder."""

    folder: Path
    manifest: Manifest
    only: frozenset[str] | None = None  # keys of the slots to use; None: all

    def restricted_to(self, keys: Iterable[str]) -> Plan:
        """A copy of the plan that has only the slots with these keys."""
        return replace(self, only=frozenset(keys))

    def slots(self) -> Iterator[Slot]:
        """All slots in order; tuning runs come before the final runs that depend on them."""
        return (slot for slot in self._all_slots() if self.only is None or slot.key in self.only)

    def _all_slots(self) -> Iterator[Slot]:
        extends = self._extension_runs()
        for identity, run in self.manifest.runs.items():
            if run.role != "final":
                yield Slot(identity, extends=extends.get(identity))
        for key, cell in self.manifest.cells.items():
            for seed in cell.final:
                yield Slot(f"{key}:{seed}", key, seed)

    def _extension_runs(self) -> dict[str, str]:
        """run id -> cell, for the tuning runs that are needed only if the cell's grid is extended."""
        cells = self.manifest.cells.items()
        needed = {identity for _, cell in cells for position in cell.declared for identity in cell.tuning[position]}
        found = {identity: key for key, cell in cells for row in cell.tuning for identity in row}
        return {identity: key for identity, key in found.items() if identity not in needed}

    @cached_property
    def placing(self) -> dict[str, Any]:
        """Placing keys of its runs (where and how they happen), with references to environment variables resolved.

        Raises DamagedFile for a key that is not a placing key, or a value that the key does not accept.
        """
        found = with_environment(self.manifest.placing)
        for key in {"output_root": None, **found}:
            wanted = refused(key, found.get(key)) if key in PLACING else f"one of the keys {', '.join(PLACING)}"
            if wanted:
                where = f"{self.folder / 'manifest.json'}: placing: {key}={str(found.get(key))[:100]!r}"
                raise DamagedFile(f"{where}: accepted: {wanted}. {_AGAIN}")
        return found

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Keys whose values differ between the runs."""
        points = [run.point for run in self.manifest.runs.values()]
        keys = dict.fromkeys(key for point in points for key in point)
        return tuple(key for key in keys if len({point.get(key) for point in points}) > 1)

    def difference(self, identity: str) -> str:
        """The overrides that distinguish a run from the others: `method=lora seed=1`."""
        point = self.manifest.runs[identity].point
        return " ".join(f"{key}={point[key]}" for key in self.varying if key in point)

    def configuration(self, identity: str, placing: Mapping[str, Any]) -> RunConfig:
        """The frozen configuration of a run with these placing keys; a tuning run never saves the base's own weights.

        Raises DamagedFile if the run's file does not match the manifest or this code gives the run another id, Refused
        if a plugin that the run needs lies in the plan's folder.
        """
        content, path = self._content(identity), self.folder / "runs" / f"{identity}.json"
        tree = self._tree(content, path)
        placing = {"force": False} | self.placing | dict(placing)
        if self.manifest.runs[identity].role == "tuning" and placing.get("train.save") == "all":
            placing["train.save"] = "adapter"  # otherwise a whole model per grid value and seed, which nobody will load
        modules = placing.get("plugins")
        named = list(map(str, modules)) if isinstance(modules, list) else []
        plugins.refuse_bundled(f"plan {self.manifest.name}", named, self.folder)
        config = from_tree(placed(unplaced(tree), placing))
        if run_id(config) != identity:
            raise DamagedFile(f"{path}: this code names the run {run_id(config)}: the keys of a run changed. {_AGAIN}")
        return config

    def _content(self, identity: str) -> bytes:
        """The bytes of a run's file. Raises DamagedFile if they do not match the manifest."""
        path = self.folder / "runs" / f"{identity}.json"
        try:
            content = read_bytes(path, MANIFEST, below=self.folder)
        except DamagedFile as error:
            raise DamagedFile(f"{error} {_AGAIN}") from None
        if hashlib.sha256(content).hexdigest() != self.manifest.runs[identity].sha256:
            raise DamagedFile(f"{path}: it does not match the checksum in manifest.json. {_AGAIN}")
        return content

    def has_whole_file(self, identity: str) -> bool:
        """Whether the file of a run's configuration is there and matches the manifest."""
        try:
            self._content(identity)
        except DamagedFile:
            return False
        return True

    @staticmethod
    def _tree(content: bytes, path: Path) -> dict[str, Any]:
        tree = parse_json(content, path)
        if not isinstance(tree, dict):
            raise DamagedFile(f"{path}: not a configuration. {_AGAIN}")
        return tree


_AGAIN = "Plan again (the same command); runs that are done stay done."
_ANEW = "Move the folder of the plan away and plan again (the same command); runs that are done stay done."


def all_plans() -> list[Path]:
    """The folders of the plans in PLANS, by name."""
    return sorted(path.parent for path in PLANS.rglob("manifest.json"))


def names() -> list[str]:
    """The names of the plans in PLANS, as `find` takes them."""
    return [path.relative_to(PLANS).as_posix() for path in all_plans()]


def find(name: str) -> Path:
    """The folder of a plan given by path or by name. Raises Unavailable."""
    require_printable("plan", Path(name))
    for folder in (Path(name), PLANS / name):
        if (folder / "manifest.json").is_file():
            return folder
    raise Unavailable(
        f"plan {name!r}: no such folder with a manifest.json; in {PLANS}: {', '.join(names()) or 'none'}."
    )


def is_plan(name: str) -> bool:
    """Whether a path or a name refers to a plan."""
    return any((folder / "manifest.json").is_file() for folder in (Path(name), PLANS / name))


def named(name: str) -> Plan:
    """Find and read the plan given by path or by name. Raises the errors of `find` and `read`."""
    return read(find(name))


def read(folder: Path) -> Plan:
    """Read a plan. Raises DamagedFile if its manifest cannot be read, or does not match its schema or checksum."""
    path = folder / "manifest.json"
    try:
        manifest = Manifest.model_validate_json(read_bytes(path, MANIFEST, below=folder))
    except DamagedFile as error:
        raise DamagedFile(f"{error} {_ANEW}") from None
    except ValidationError as error:
        raise DamagedFile(f"{path}: not a manifest of schema version 2: {first_fault(error)}. {_ANEW}") from None
    if manifest.checksum != manifest.seal():
        raise DamagedFile(f"{path}: its content does not match its checksum. {_ANEW}")
    return Plan(folder, manifest)


def write(folder: Path, manifest: Manifest, texts: Mapping[str, str]) -> tuple[Plan, int]:
    """Write a plan to `folder`, or add its new runs to the plan that already exists there.

    `texts`: run id -> configuration as JSON. An existing plan whose runs have other ids in this code, since
    configuration keys were added or removed, is renamed to FOLDER.1 with a message. Damaged files of the requested runs
    are written anew. Returns the plan and the number of new runs. Raises DamagedFile (the manifest of the existing
    plan), DiskRefuses, ConfigError (unprintable characters in the folder's name, or runs whose data the plan's placing
    cannot serve).
    """
    require_printable("--folder", folder.absolute())
    with disk_errors(folder.parent):
        if not folder.exists():
            _write_new(folder, manifest, texts)
            return read(folder), len(texts)
        with owned(folder):
            there = read(folder)
            old = there.manifest
            if not _has_outdated_ids(there, manifest):
                merged = _merged(old, manifest)
                damaged = [one for one in manifest.runs if one in old.runs and not there.has_whole_file(one)]
                for identity in damaged:  # inert keys may differ from those of the text that was there
                    digest = manifest.runs[identity].sha256
                    merged.runs[identity] = merged.runs[identity].model_copy(update={"sha256": digest})
                for identity in (*damaged, *(merged.runs.keys() - old.runs.keys())):
                    write_atomic(folder_in(folder, "runs") / f"{identity}.json", texts[identity])
                _write_manifest(folder, merged)  # after the files, so that it names no missing one
                if damaged:
                    found = number_of(len(damaged), "damaged configuration")
                    print_wrapped(f"{folder}: {found} written anew", stderr=True)
                return read(folder), len(merged.runs) - len(old.runs)
            numbered = (folder.with_name(f"{folder.name}.{number}") for number in count(1))
            aside = next(path for path in numbered if not path.exists())
            os.rename(folder, aside)
            print_wrapped(f"{folder} is of a version with other keys; it is kept as {aside}", stderr=True)
        _write_new(folder, manifest, texts)
        return read(folder), len(texts)


def _has_outdated_ids(there: Plan, new: Manifest) -> bool:
    """Whether the existing plan holds a requested run under an id that this code no longer gives to it.

    A run with another id only because the user has edited a YAML file since is still valid and stays in the plan.
    """

    def role_and_point(run: PlannedRun) -> tuple[str, frozenset[tuple[str, str]]]:
        return run.role, frozenset(run.point.items())

    requested = {role_and_point(run): identity for identity, run in new.runs.items()}
    existing = there.manifest.runs.items()
    others = [identity for identity, run in existing if requested.get(role_and_point(run), identity) != identity]
    return any(not _has_valid_id(there, identity) for identity in others)


def _has_valid_id(there: Plan, identity: str) -> bool:
    try:
        there.configuration(identity, {})
    except (ConfigError, DamagedFile):
        return False
    return True


def _write_new(folder: Path, manifest: Manifest, texts: Mapping[str, str]) -> None:
    """Write a temporary folder and rename it. Files are not flushed to disk one by one: checksums detect a loss."""
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
    """The text of manifest.json, with its checksum."""
    return manifest.model_copy(update={"checksum": manifest.seal()}).model_dump_json(indent=1) + "\n"


def _merged(old: Manifest, new: Manifest) -> Manifest:
    """The old runs in their order, then the new ones; new seeds are added to existing cells.

    A cell that is planned again with another tuning budget replaces the old one, so that each setting is tuned once.
    The new placing applies to all runs. Raises ConfigError if the old runs read the user's files and the new ones do
    not, or the reverse: no placing would serve both.
    """
    if old.runs.keys() - new.runs.keys():
        problems = [
            Problem(key, new.placing.get(key), f"{before} as in the runs that the plan {old.name} has", ANOTHER_NAME)
            for key, before in old.placing.items()
            if key.startswith("data.") and (before is None) != (new.placing.get(key) is None)
        ]
        if problems:
            raise ConfigError(problems)
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
