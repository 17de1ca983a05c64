"""Keeps a run's record true while the run goes on: attempts, status, failures."""

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
    """The record of one run folder, written at every change of state. The caller holds the folder's lock."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        identity: str,
        log: Callable[[str], None] = print,
        lost_as: Literal["killed", "node_failure"] = "killed",
    ) -> None:
        """`lost_as`: how an earlier attempt ended that still says `running`, now that its lock is free."""
        self.folder, self._folders = folder, _folders(config)
        self.record = find_record(folder, log) or _new_record(config, identity)
        for attempt in self.record.attempts:
            if attempt.status == "running":
                attempt.status = lost_as
        self._load: Load | None = None  # of the cores when this process's attempt began

    @property
    def finished(self) -> bool:
        return self.record.status == "done"

    def start_over(self, config: RunConfig) -> None:
        """Put the old record aside (nothing measured is ever deleted) and begin a new one."""
        path = self.folder / "record.json"
        if path.exists():
            path.rename(self.folder / f"record.replaced-{self.record.checksum[:8]}.json")
        self.record = _new_record(config, self.record.run_id)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """One process's work on the run: `running` inside; what goes wrong is recorded and goes on to the caller.

        Whoever brings the run to its end calls `end` inside.
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
            if isinstance(error, torch.linalg.LinAlgError):  # a matrix with a number that is not finite, as a rule
                raise TrainingFailed(f"{error} Try a lower train.lr.") from None
            raise

    def begin_training(self, parameters: Parameters, provenance: Provenance, step: int) -> None:
        """Note what trains, what it is made from, and the step that this attempt starts from."""
        self.record.parameters, self.record.provenance = parameters, provenance
        self.record.attempts[-1].from_step = step
        self.write()

    def end(self) -> None:
        """The run is done."""
        self.record.failure = None
        self._end("done")

    def give_up(self, message: str) -> None:
        """Record that the run is not tried any more by itself."""
        self.record.failure = Failure(type="Died", message=public_text(message, self._folders))
        self._last_metrics(self.record.failure)
        self.record.status = self.record.attempts[-1].status = "failed"
        self.write()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds spent inside to `seconds.<stage>`."""
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
            status = "preempted"  # nothing is wrong with the run: it goes on when there is room
        message = public_text(str(error), self._folders)[:2000]
        # No record holds a number that is not finite; where one is the reason, the message has it.
        self.record.facts = {name: fact for name, fact in self.record.facts.items() if finite(fact)}
        self.record.failure = Failure(type=type(error).__name__, message=message)
        self._last_metrics(self.record.failure)
        if message != str(error):
            with suppress(OSError):
                private.keep(self.folder, failed=_now(), message=str(error)[:20_000])
        with suppress(OSError):  # a full disk refuses this too: the record stays `running`, and `error` is what counts
            self._end(status)

    def _last_metrics(self, failure: Failure) -> None:
        try:
            lines = [line for line in step_log.read(self.folder / "metrics.jsonl") if line["kind"] == "train"]
        except DamagedFile:  # told when the log is needed; this run has failed for another reason
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
    """What is wrong where the record refused a number of the model: the last steps may leave weights that give NaN."""
    first = error.errors()[0]
    if first["type"] != "finite_number":
        return None
    name = ".".join(map(str, first["loc"]))
    return TrainingFailed(
        f"{error.title.lower()} {name} of the model: {first['input']}: not finite. Try a lower train.lr."
    )


def _folders(config: RunConfig) -> dict[str, str | None]:
    """The folders of this machine that a configuration names, by key."""
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
