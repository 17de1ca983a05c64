"""Updates a run's record while it runs: attempts, status, failures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from sdsbench.core import private, step_log
from sdsbench.core.errors import DamagedFile, Interrupted, SdsbenchError, TrainingFailed
from sdsbench.core.files import disk_reason
from sdsbench.core.private import public_text
from sdsbench.core.processor import Load
from sdsbench.core.reading import finite
from sdsbench.core.record import Attempt, Failure, Parameters, Provenance, Record
from sdsbench.core.run_folder import find_record, write_record
from sdsbench.runs.aggregate import means_over
from sdsbench.runs.configuration.identity import cost_keys, inert_keys, resolved
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.training.passes import out_of_memory


class RecordKeeper:
    """Writes the record of one run folder at every change of its status. The caller holds the folder's lock."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        identity: str,
        log: Callable[[str], None] = print,
        lost_as: Literal["killed", "node_failure"] = "killed",
    ) -> None:
        """`lost_as`: status for an earlier attempt whose process died: still marked `running`, but its lock is free."""
        self.folder, self._folders = folder, _folders(config)
        self.record = find_record(folder, log) or _new_record(config, identity)
        for attempt in self.record.attempts:
            if attempt.status == "running":
                attempt.status = lost_as
        self._load: Load | None = None  # load of the CPU cores when this attempt began

    @property
    def finished(self) -> bool:
        return self.record.status == "done"

    def start_over(self, config: RunConfig) -> None:
        """Rename the old record, since no measurement is ever deleted, and begin a new one."""
        path = self.folder / "record.json"
        if path.exists():
            path.rename(self.folder / f"record.replaced-{self.record.checksum[:8]}.json")
        self.record = _new_record(config, self.record.run_id)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Mark the run as `running` while active; an error is recorded as its status and raised again.

        The caller calls `end` before leaving the context once the run is complete.
        """
        self._begin()
        try:
            yield
        except (SdsbenchError, KeyboardInterrupt, MemoryError) as error:
            self._fail(error)
            raise
        except ValidationError as error:
            failed = _not_finite(error)
            self._fail(failed or error)
            if failed is not None:
                raise failed from None
            raise
        except Exception as error:
            self._fail(error)
            if out_of_memory(error):
                raise TrainingFailed(f"out of memory: {error}", kind="oom") from None
            if isinstance(error, torch.linalg.LinAlgError):  # usually a matrix with values that are not finite
                advice = " Try a lower train.lr." if self.record.provenance else ""  # it is set where training begins
                raise TrainingFailed(f"{error}{advice}") from None
            raise

    def begin_training(self, parameters: Parameters, provenance: Provenance, step: int) -> None:
        """Record parameter counts, provenance and the step from which this attempt starts."""
        self.record.parameters, self.record.provenance = parameters, provenance
        self.record.attempts[-1].from_step = step
        if step == 0:
            self.record.memory = None  # of an earlier attempt, none of whose steps count
        self.write()

    def end(self) -> None:
        """Mark the run as done."""
        self.record.failure = None
        self._end("done")

    def give_up(self, message: str) -> None:
        """Mark the run as failed, so that workers do not start it again without --retry."""
        self.record.failure = Failure(type="Died", message=public_text(message, self._folders))
        self._last_metrics(self.record.failure)
        self.record.status = self.record.attempts[-1].status = "failed"
        self.write()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent in this context to `seconds.<stage>` of the record."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            setattr(self.record.seconds, stage, getattr(self.record.seconds, stage) + spent)

    def write(self) -> None:
        self.record.checksum = write_record(self.folder, self.record).checksum

    def _begin(self) -> None:
        self._load = Load.now()
        attempt = Attempt(started=_now(), status="running", slurm_job=_slurm_job())
        private.keep(self.folder, started=attempt.started, host=private.host(), process=os.getpid())
        self.record.attempts.append(attempt)
        self.record.status = "running"
        self.write()

    def _fail(self, error: BaseException) -> None:
        status = "failed"
        if isinstance(error, Interrupted | TrainingFailed):
            status = error.kind
        elif isinstance(error, KeyboardInterrupt):
            status = "preempted"
        elif out_of_memory(error):
            status = "oom"
        elif disk_reason(error, self.folder.parent):
            status = "preempted"  # the run itself did not fail and resumes later
        message = public_text(str(error), self._folders)[:2000]
        # Records hold only finite numbers; if one that is not finite caused the failure, the message contains it.
        self.record.facts = {name: fact for name, fact in self.record.facts.items() if finite(fact)}
        self.record.failure = Failure(type=type(error).__name__, message=message)
        self._last_metrics(self.record.failure)
        if message != str(error):
            with suppress(OSError):
                private.keep(self.folder, failed=_now(), message=str(error)[:20_000])
        with suppress(OSError):  # on a full disk the record stays `running`; `error` is still raised
            self._end(status)

    def _last_metrics(self, failure: Failure) -> None:
        try:
            lines = [line for line in step_log.read(self.folder / "metrics.jsonl") if line["kind"] == "train"]
        except DamagedFile:  # reported when the log is read; it is not the cause of this failure
            return
        if lines:
            last, failure.step = lines[-1], lines[-1]["step"]
            failure.last_metrics = {key: last[key] for key in ("loss", "lr", "grad_norm") if finite(last.get(key))}

    def _end(self, status: Any) -> None:
        self.record.status = status
        self.record.attempts[-1].status = status
        self.record.attempts[-1].ended = _now()
        self.record.attempts[-1].others = round(self._load.others_since(), 2) if self._load else None
        self.write()


def _not_finite(error: ValidationError) -> TrainingFailed | None:
    """The error for a record that rejects a NaN or infinite score (weights broken by the last steps); else None."""
    first = error.errors()[0]
    if first["type"] != "finite_number":
        return None
    name = ".".join(map(str, first["loc"]))
    return TrainingFailed(
        f"{error.title.lower()} {name} of the model: {first['input']}: not finite. Try a lower train.lr."
    )


def _folders(config: RunConfig) -> dict[str, str | None]:
    """The folders on this machine that a configuration refers to, by key."""
    location = config.model.location if config.model.source == "folder" else None
    return {"output_root": config.output_root, "data.root": config.data.root, "model.location": location}


def _new_record(config: RunConfig, identity: str) -> Record:
    method = config.method
    return Record(
        run_id=identity,
        status="running",
        model=config.model.name,
        method=method.name,
        task=config.task.name,
        train_set=config.task.train_set,
        protocol=config.protocol.name,
        seed=config.seed,
        rank=getattr(method, "rank", None),
        alpha=getattr(method, "alpha", None),
        lr=config.train.lr,
        config=resolved(config),
        inert=sorted(inert_keys(config)),
        placing=cost_keys(config),
        means=means_over(config.task.name),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _slurm_job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
