"""Load all rows of one run: training, evaluation and held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import DataUsed
from sdsbench.data import catalogue, columns, own_files
from sdsbench.data.draw import limited
from sdsbench.data.held_back import load_training, split_off, tuning_rows
from sdsbench.data.sources import Rows, load, text_rows
from sdsbench.models.load import load_tokenizer
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import require_data
from sdsbench.tasks import base as tasks
from sdsbench.tasks.base import Evaluation, Task
from sdsbench.training.tokens import encode


@dataclass(frozen=True)
class RunData:
    """Training rows of a run, and every evaluation of its task with its rows (at most eval.limit)."""

    training: Rows
    evaluations: Sequence[tuple[Evaluation, Rows]]
    text: Rows | None = None  # eval.text
    held_out: Rows | None = None  # train.best_every

    def used(self) -> list[DataUsed]:
        beside = [rows for rows in (self.held_out, self.text) if rows is not None]
        return [self.training.used(), *(rows.used() for rows in (*(rows for _, rows in self.evaluations), *beside))]


def load_run(config: RunConfig) -> RunData:
    """Load the rows of a configuration with a resolved data.source. Raises Unavailable."""
    require_data(config)
    tuning = config.eval.split == "validation"
    task = tasks.build(config.task)
    evaluations = task.evaluations()
    names = [evaluation.name for evaluation in evaluations]
    if len(set(names)) < len(names):  # scores and answers are stored under these names
        raise ValueError(f"task {config.task.name}: two evaluations share a name: {', '.join(names)}")
    wanted = {(evaluation.dataset, evaluation.split) for evaluation in evaluations}
    read = {which: (tuning_rows if tuning else load)(*which, config.data, task.classes) for which in sorted(wanted)}
    held_back = list(read.values()) if tuning else []
    training = load_training(config.task.train_set, config.data, held_back, task.classes, _selection(config, task))
    for rows in (training, *read.values()):
        columns.check(rows, task.checks(), own_files.NAMED_BY if catalogue.get(rows.dataset).own else "")
    held_out = None
    if config.train.best_every is not None:
        training, held_out = split_off(training, config.train.best_rows)
    scored = {which: limited(rows, config.eval.limit, config.eval.order) for which, rows in read.items()}
    pairs = [(evaluation, scored[evaluation.dataset, evaluation.split]) for evaluation in evaluations]
    text = text_rows(config.eval.text) if config.eval.text else None
    if text is not None:
        _check_untrained(text, training)
    return RunData(training, pairs, text, held_out)


def _check_untrained(text: Rows, training: Rows) -> None:
    """Raises Unavailable if eval.text contains training texts, whose loss would not measure retention."""
    texts = list(text.questions(["text"]))
    for column in [name for name, value in training[0].items() if isinstance(value, str)]:
        if common := sum(map(set(training.questions([column])).__contains__, texts)):
            raise Unavailable(
                f"eval.text: {common} of {len(text)} rows are in column {column} of the training set "
                f"{training.dataset}; accepted: a text that nothing is trained on"
            )


def _selection(config: RunConfig, task: Task) -> Callable[[Rows], Iterator[int]] | None:
    """A function that yields the indices of rows that task and data.max_tokens admit to training; None: all rows.

    Texts are tokenized as for training, lazily, so only as many as the caller consumes.
    """
    counts, most = task.trains_on(), config.data.max_tokens
    if counts is None and most is None:
        return None

    def select(rows: Rows) -> Iterator[int]:
        positions = (position for position, row in enumerate(rows) if counts is None or counts(row))
        if most is None:
            yield from positions
            return
        kept, ahead = tee(positions)
        examples = (task.training_example(rows[position]) for position in ahead)
        encoded = encode(examples, load_tokenizer(config.model), most, config.task)  # type: ignore[arg-type]
        yield from (position for position, example in zip(kept, encoded, strict=True) if not example.cut)

    return select
