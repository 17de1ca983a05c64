"""One run from its configuration to its record: `prepare`, `train`, `finish`. Start reading here."""

from __future__ import annotations

from sdsbench.core.record import Record
from sdsbench.runs.closing_summary import summary
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.finish import finish
from sdsbench.runs.prepare import prepare
from sdsbench.runs.reuse import earlier_results, reuse_record
from sdsbench.runs.run_context import RunContext, open_run
from sdsbench.runs.train import train


def execute(config: RunConfig, context: RunContext | None = None) -> Record:
    """Train and evaluate a run, or return the record of the same run if it is already finished.

    Raises Unavailable (data or weights), TrainingFailed, Interrupted (state saved), Owned (another process holds the
    run), Refused (results of other code, weights or data exist), DiskRefuses (full or read-only; written files stay).
    """
    with open_run(config, context or RunContext()) as run:
        record, state = earlier_results(run)
        if record is not None:
            reuse_record(run, record)
        else:
            with run.keeper.attempt():
                record = finish(train(prepare(run, state)))
        run.log(summary(record, run.folder))
        return record
