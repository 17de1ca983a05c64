"""StagedRun: a run whose stages a worker calls one by one, so that several runs can train as a group."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from sdsbench.core.errors import DiskRefuses, Interrupted, Owned, SdsbenchError
from sdsbench.core.record import Record
from sdsbench.runs.banner import announcement
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.finish import finish
from sdsbench.runs.prepare import Prepared, prepare
from sdsbench.runs.reuse import earlier_results, reuse_record
from sdsbench.runs.run_context import RunContext, open_run
from sdsbench.runs.train import train
from sdsbench.training import checkpoint
from sdsbench.training.checkpoint import Checkpoint

NOT_BEGUN = "not started"  # status of a run that an error stopped before its record had an attempt of this process


class StagedRun:
    """A plan's run in this process: `prepared` is set between its stages, `over` when it ends, `error` if it fails."""

    def __init__(self, identity: str, emit: Callable[..., None]) -> None:
        self.identity, self._emit = identity, emit
        self.prepared: Prepared | None = None
        self.error: Exception | None = None
        self._state: Checkpoint | None = None  # checkpoint of an earlier attempt
        self._contexts = ExitStack()
        self.over = False
        self._begun = False  # whether the record has an attempt of this process
        emit("take", run=identity)

    def __enter__(self) -> StagedRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Release the run if it has not ended; an error of the process (a second Ctrl-C) is stored in its record."""
        if not self.over:
            self._contexts.__exit__(kind, error, at)

    def prepare(self, config: RunConfig, context: RunContext) -> None:
        """Lock the run and prepare it for training, or reuse its finished record."""
        self._stage(lambda: self._prepare(config, context))

    def prepare_again(self, context: RunContext) -> None:
        """Prepare the run again with another context (for example with its own base weights instead of shared ones).

        A checkpoint of step 0 is deleted and recomputed, since it lacks the method's changes of base weights.
        """
        if self.prepared is not None:
            run = dataclasses.replace(self.prepared.run, context=context)
            if self.prepared.state.step == 0:
                checkpoint.remove_all(run.folder)
                self._state = None
            self._stage(lambda: setattr(self, "prepared", prepare(run, self._state)))

    def complete(self) -> None:
        """Train the remaining steps and finish the run."""
        if self.prepared is not None:
            self._stage(lambda: self._end(finish(train(self.prepared))))  # type: ignore[arg-type]

    def record_only(self, make: Callable[[], Record]) -> None:
        """End the run with the record that `make` returns, without training."""
        self._stage(lambda: self._end(make()))

    def fail(self, error: Exception) -> None:
        """End this run with the error that its training raised, and store the error in its record."""
        try:
            self._contexts.__exit__(type(error), error, error.__traceback__)
        except Exception as raised:  # RecordKeeper may have converted it to another error
            error = raised
        self.over, self.prepared, self.error = True, None, error
        if isinstance(error, Owned | DiskRefuses):
            self._emit("leave", run=self.identity)
            return
        message = str(error) if isinstance(error, SdsbenchError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, SdsbenchError):
            traceback.print_exception(error)
        if self._begun or isinstance(error, Interrupted):
            self._emit("end", run=self.identity, status=getattr(error, "kind", "failed"), message=message)
            return
        code = error.exit_code if isinstance(error, SdsbenchError) else SdsbenchError.exit_code
        self._emit("end", run=self.identity, status=NOT_BEGUN, message=message, code=code)

    def _prepare(self, config: RunConfig, context: RunContext) -> None:
        run = self._contexts.enter_context(open_run(config, context))
        record, self._state = earlier_results(run)
        if record is not None:
            reuse_record(run, record)
            self._end(record)
            return
        run.log(announcement(run.config))
        self._contexts.enter_context(run.keeper.attempt())
        self._begun = True
        self.prepared = prepare(run, self._state)

    def _end(self, record: Record) -> None:
        self._contexts.close()
        self.over, self.prepared = True, None
        self._emit("end", run=self.identity, status=record.status, message="")

    def _stage(self, stage: Callable[[], Any]) -> None:
        try:
            stage()
        except Exception as error:  # a failing run must not stop the sweep; its record holds the message
            self.fail(error)
