"""Runs as tables see them: a record, its folder, and every value under one flat name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdsbench.core.errors import Refused
from sdsbench.results.frames import DEFAULT, Folders, read_all, run_row
from sdsbench.core.record import Record


@dataclass(frozen=True)
class Run:
    folder: Path
    record: Record
    flat: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.record.run_id

    def fits(self, where: Mapping[str, Any]) -> bool:
        """Whether every key has the wanted value, or one of a tuple of values."""
        return all(
            self.flat.get(key) in wanted if isinstance(wanted, tuple) else self.flat.get(key) == wanted
            for key, wanted in where.items()
        )

    @property
    def embedded(self) -> bool:
        """Whether any of its data was made by this package."""
        provenance = self.record.provenance
        return provenance is not None and any(used.source == "embedded" for used in provenance.data)


def load(folders: Folders = DEFAULT, where: Sequence[str] = ()) -> tuple[list[Run], dict[str, str]]:
    """The runs of the folders, narrowed by `key=value` texts, and what is wrong with damaged ones.

    Raises Refused for a `where` that no run knows (a misspelt key would silently empty the table).
    """
    records, damaged = read_all(folders)
    runs = [
        Run(folder, record, run_row(folder, record) | {"data_source": _source(record)}) for folder, record in records
    ]
    for text in where:
        key, _, value = text.partition("=")
        known = sorted({name for run in runs for name in run.flat})
        if runs and key not in known:
            raise Refused(f"--where {text}: no run has the key {key}; keys: {', '.join(known)}")
        runs = [run for run in runs if str(run.flat.get(key)) == value]
    return runs, damaged


def _source(record: Record) -> str:
    """Where a run's data came from: hub, local, embedded, or several joined by `+`."""
    return "+".join(sorted({used.source for used in record.provenance.data})) if record.provenance else "unknown"
