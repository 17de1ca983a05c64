"""All rows of one run, and whether a finished run's rows are those that are here now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdsbench.core.errors import Refused, Unavailable
from sdsbench.core.record import DataUsed, Record
from sdsbench.data.held_back import load_training, tuning_rows
from sdsbench.data.sources import Rows, load
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import require_data
from sdsbench.tasks import base as tasks
from sdsbench.tasks.base import Evaluation


@dataclass(frozen=True)
class RunData:
    """What a run trains on, and every evaluation of its task with its rows, cut to eval.limit."""

    training: Rows
    evaluations: Sequence[tuple[Evaluation, Rows]]

    def used(self) -> list[DataUsed]:
        return [self.training.used(), *(rows.used() for _, rows in self.evaluations)]


def load_run(config: RunConfig) -> RunData:
    """The rows that a settled configuration asks for. Raises Unavailable."""
    require_data(config)
    tuning, limit = config.eval.split == "validation", config.eval.limit
    evaluations = tasks.build(config.task).evaluations()
    wanted = {(evaluation.dataset, evaluation.split) for evaluation in evaluations}
    read = {which: (tuning_rows if tuning else load)(*which, config.data) for which in sorted(wanted)}
    training = load_training(
        config.task.train_set, config.data, config.seeds.data, list(read.values()) if tuning else []
    )
    scored = [(evaluation, read[evaluation.dataset, evaluation.split]) for evaluation in evaluations]
    return RunData(
        training, [(evaluation, rows.take(range(min(limit or len(rows), len(rows))))) for evaluation, rows in scored]
    )


def require_same_data(config: RunConfig, record: Record) -> str:
    """Refuse to take a finished run for one on other rows: data.root is not part of a run's name.

    Returns a remark where the rows could not be compared. Raises Refused with both fingerprints.
    """
    if config.data.source != "local" or record.provenance is None:
        return ""
    try:
        now = load_run(config).used()
    except Unavailable as error:
        return f"its data could not be compared with what is here now: {error}"
    then = record.provenance.data
    if [used.fingerprint for used in then] == [used.fingerprint for used in now]:
        return ""
    pairs = [f"{_text(old)}, now {_text(new)}" for old, new in zip(then, now, strict=False) if _text(old) != _text(new)]
    raise Refused(
        f"finished run {record.run_id} read other data than data.root={config.data.root} holds: {'; '.join(pairs)}. "
        "Its scores are not those of this data: force=true runs it again and replaces them, another output_root=FOLDER "
        "keeps both."
    )


def _text(used: DataUsed) -> str:
    return f"{used.dataset} {used.split}: {used.rows} rows, fingerprint {used.fingerprint}"
