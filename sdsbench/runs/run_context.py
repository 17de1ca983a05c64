"""What a run is given by its surroundings, and the run itself while a process works on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdsbench.core.console import print_now
from sdsbench.core.containment import require_plain
from sdsbench.core.files import disk_errors
from sdsbench.core.lock import owned
from sdsbench.core.record import Tuning
from sdsbench.models.load import LoadedModel
from sdsbench.models.load import load as load_model
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.keeper import RecordKeeper
from sdsbench.training.signals import StopRequest

Log = Callable[[str], None]
LoadModel = Callable[..., LoadedModel]


@dataclass(frozen=True)
class RunContext:
    """What a sweep's worker brings to the runs of its process; the defaults are those of a run alone."""

    log: Log = print_now
    stop: StopRequest | None = None
    load_model: LoadModel = load_model
    tuning: Tuning | None = None  # how a value of this configuration was chosen
    lost_as: Literal["killed", "node_failure"] = "killed"  # what ended an earlier attempt that could not say so


@dataclass(frozen=True)
class ActiveRun:
    """One run that this process has locked: its configuration, folder and record."""

    config: RunConfig
    folder: Path
    keeper: RecordKeeper
    stop: StopRequest
    context: RunContext

    @property
    def log(self) -> Log:
        return self.context.log


@contextmanager
def open_run(config: RunConfig, context: RunContext) -> Iterator[ActiveRun]:
    """Lock the run's folder and open its record, or begin one.

    Raises Unavailable (no source of data), Refused (links or the like in the folder), Owned (another process has the
    run), DiskRefuses (full or read-only; what was finished stays intact).
    """
    config, _ = resolve_source(config)
    identity = run_id(config)
    folder = Path(config.output_root) / identity
    require_plain(folder)
    with disk_errors(folder.parent), owned(folder):
        keeper = RecordKeeper(folder, config, identity, context.log, context.lost_as)
        with nullcontext(context.stop) if context.stop else StopRequest() as stop:
            yield ActiveRun(config, folder, keeper, stop, context)
