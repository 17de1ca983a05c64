"""One run that a worker drives stage by stage, so that several can train together between their own stages."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from sdsbench.core.errors import DiskRefuses, Owned, SdsbenchError
from sdsbench.core.record import Record
from sdsbench.runs.banner import announcement
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.finish import finish
from sdsbench.runs.prepare import Prepared, prepare
from sdsbench.runs.reuse import earlier_results, take_up
from sdsbench.runs.run_context import RunContext, open_run
from sdsbench.runs.train import train
from sdsbench.training import checkpoint
from sdsbench.training.checkpoint import Checkpoint


class DrivenRun:
    """A run of a plan in this process: `prepared` between its stages, `over` at its end, `error` where it failed."""

    def __init__(self, identity: str, emit: Callable[..., None]) -> None:
        self.identity, self._emit = identity, emit
        self.prepared: Prepared | None = None
        self.error: Exception | None = None
        self._state: Checkpoint | None = None  # of an earlier attempt
        self._contexts = ExitStack()
        self.over = False
        emit("take", run=identity)

    def __enter__(self) -> DrivenRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close what is still open; an error of the whole process (a second Ctrl-C) ends up in the run's record."""
        if not self.over:
            self._contexts.__exit__(kind, error, at)

    def prepare(self, config: RunConfig, context: RunContext) -> None:
        """Lock the run and prepare it, or take up a finished one."""
        self._stage(lambda: self._prepare(config, context))

    def prepare_again(self, context: RunContext) -> None:
        """Prepare the run once more in other surroundings, as if it had not been prepared before.

        A state before the first step is made anew: a checkpoint does not hold what the method did to base weights.
        """
        if self.prepared is not None:
            run = dataclasses.replace(self.prepared.run, context=context)
            if self.prepared.state.step == 0:
                checkpoint.remove_all(run.folder)
                self._state = None
            self._stage(lambda: setattr(self, "prepared", prepare(run, self._state)))

    def complete(self) -> None:
        """Train what is left and finish."""
        if self.prepared is not None:
            self._stage(lambda: self._end(finish(train(self.prepared))))  # type: ignore[arg-type]

    def record_only(self, make: Callable[[], Record]) -> None:
        """End the run with a record that was made without running it."""
        self._stage(lambda: self._end(make()))

    def fail(self, error: Exception) -> None:
        """End this run with the error that its training raised; the record says what happened."""
        try:
            self._contexts.__exit__(type(error), error, error.__traceback__)
        except Exception as raised:  # the record's keeper may have turned it into an error for users
            error = raised
        self.over, self.prepared, self.error = True, None, error
        if isinstance(error, Owned | DiskRefuses):
            self._emit("leave", run=self.identity)
            return
        message = str(error) if isinstance(error, SdsbenchError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, SdsbenchError):
            traceback.print_exception(error)
        self._emit("end", run=self.identity, status=getattr(error, "kind", "failed"), message=message)

    def _prepare(self, config: RunConfig, context: RunContext) -> None:
        run = self._contexts.enter_context(open_run(config, context))
        record, self._state = earlier_results(run)
        if record is not None:
            take_up(run, record)
            self._end(record)
            return
        run.log(announcement(run.config))
        self._contexts.enter_context(run.keeper.attempt())
        self.prepared = prepare(run, self._state)

    def _end(self, record: Record) -> None:
        self._contexts.close()
        self.over, self.prepared = True, None
        self._emit("end", run=self.identity, status=record.status, message="")

    def _stage(self, stage: Callable[[], Any]) -> None:
        try:
            stage()
        except Exception as error:  # one failing run never stops a sweep; its record has the message
            self.fail(error)
