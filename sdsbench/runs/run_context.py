"""RunContext, what the calling process provides to a run, and ActiveRun, a run that this process works on."""

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
    """What a sweep worker provides to its runs; the defaults are those of a single run."""

    log: Log = print_now
    stop: StopRequest | None = None
    load_model: LoadModel = load_model
    tuning: Tuning | None = None  # how a tuned value of this configuration was chosen
    lost_as: Literal["killed", "node_failure"] = "killed"  # status for an attempt whose process died silently


@dataclass(frozen=True)
class ActiveRun:
    """A run whose folder this process has locked: its configuration, folder and record."""

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
    """Lock the run's folder, and open its record or begin a new one.

    Raises Unavailable (no source has the data), Refused (symbolic links or special files in the folder), Owned (another
    process holds the run), DiskRefuses (full or read-only; written files stay intact).
    """
    config, _ = resolve_source(config)
    identity = run_id(config)
    folder = Path(config.output_root) / identity
    require_plain(folder)
    with disk_errors(folder.parent), owned(folder):
        keeper = RecordKeeper(folder, config, identity, context.log, context.lost_as)
        with nullcontext(context.stop) if context.stop else StopRequest() as stop:
            yield ActiveRun(config, folder, keeper, stop, context)
