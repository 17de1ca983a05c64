"""Rows for tuning: never rows whose scores are reported, and never rows that the tuned run trains on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from sdsbench.core.errors import Unavailable
from sdsbench.data import catalogue, columns
from sdsbench.data.catalogue import DataSet
from sdsbench.data.data_config import DataConfig
from sdsbench.data.draw import limited
from sdsbench.data.sources import Rows, has_validation, load

SPLIT = "held_back"  # split name of tuning rows that come from a training split
BEST_STEP = "held_out"  # split name of the rows that choose the best step
SEED = 20240  # fixed: every run must hold back the same training rows
SHARE = 4  # from a user's own files at most one row in 4 is held back


def tuning_rows(name: str, reported: str, config: DataConfig, classes: str | None = None) -> Rows:
    """The rows that tuning is scored on, for an evaluation that reports split `reported` of data set `name`.

    These are the set's validation split, unless that is missing or is the reported one; else a fixed draw of
    `data.validation_rows` training rows (at most a quarter of a user's own files). Rows that ask the same as a reported
    row, or whose answer graders cannot read, are left out. `classes`: as in sources.load. Raises Unavailable if the
    source has neither.
    """
    asked = set(load(name, reported, config, classes).questions())
    data_set, split = tuned_on(catalogue.get(name), reported, config)
    rows = load(data_set.name, split, config, classes)
    questions = list(rows.questions())
    unreadable = {position for position, _, _ in columns.wrong_cells(rows, data_set.checks_of(reported))}
    free = [i for i, question in enumerate(questions) if question not in asked and i not in unreadable]
    if split == "train":
        usable = set(free)
        order = np.random.default_rng(SEED).permutation(len(rows)).tolist()
        most = min(config.validation_rows, max(1, len(rows) // SHARE)) if data_set.own else config.validation_rows
        free = sorted([position for position in order if position in usable][:most])
        rows = dataclasses.replace(rows, split=SPLIT)
    rows = rows.take(free)
    if not len(rows):
        raise Unavailable(f"data set {name}: every row that tuning could be scored on is a row of its {reported} split")
    return rows


def tuned_on(data_set: DataSet, reported: str, config: DataConfig) -> tuple[DataSet, str]:
    """(data set, split) that tuning rows are taken from."""
    if reported != "validation" and has_validation(data_set, config):
        return data_set, "validation"
    return catalogue.get(data_set.held_back_from or data_set.name), "train"


def without(train: Rows, tuning: Sequence[Rows]) -> Rows:
    """The training rows without those that ask the same question as a tuning row, reworded or not.

    Raises Unavailable if reworded rows cannot be recognised, or if no row is left.
    """
    data_set = catalogue.get(train.dataset)
    if data_set.original and data_set.original not in train[0]:
        raise Unavailable(
            f"data set {train.dataset}: without its column {data_set.original} nobody can tell which rows reword a row "
            f"that tuning is scored on (eval.split=validation); found {', '.join(train[0])}"
        )
    asks = _asked(train)
    everything = {question for row in asks for question in row}
    for rows in tuning:
        if rows.split == SPLIT and rows.dataset in data_set.built_from and everything.isdisjoint(rows.questions()):
            raise Unavailable(
                f"data set {train.dataset} is made of training rows of {rows.dataset}, yet holds none of the "
                f"{len(rows)} that tuning would be scored on (eval.split=validation): their texts are in another form, "
                "so that rows which repeat them cannot be told"
            )
    held = {question for rows in tuning for question in rows.questions()}
    kept = [position for position, row in enumerate(asks) if held.isdisjoint(row)]
    if not kept:
        raise Unavailable(
            f"data set {train.dataset}: no training row is left beside those that tuning is scored on; a smaller "
            "data.validation_rows leaves some"
        )
    return train.take(kept)


def _asked(rows: Rows) -> list[tuple[str, ...]]:
    """For each row the questions that it asks: its own, and the one that it rewords if a column holds it."""
    original = catalogue.get(rows.dataset).original
    columns = [rows.asks, *([(original,)] if original and original in rows[0] else [])]
    return list(zip(*(rows.questions(names) for names in columns), strict=True))


def split_off(train: Rows, count: int) -> tuple[Rows, Rows]:
    """(remaining training rows, `count` rows to choose the best step by). The draw is the same for every seed of a run.

    Training rows that ask the same as a held-out row, reworded or not, are left out: with another solution of its
    question the model would have seen the row. Raises Unavailable where no row would be left to train on.
    """
    if count >= len(train):
        raise Unavailable(f"train.best_rows={count}: accepted: fewer than the {len(train)} training rows of the run")
    held_out = limited(train, count, "random")
    taken, asks = set(held_out.indices), _asked(train)
    held = {question for index, row in zip(train.indices, asks, strict=True) if index in taken for question in row}
    rest = [position for position, row in enumerate(asks) if held.isdisjoint(row)]
    if not rest:
        raise Unavailable(
            f"train.best_rows={count}: every training row asks the same as one of the {count} held-out rows; accepted: "
            "a number that leaves some questions to train on"
        )
    return train.take(rest), dataclasses.replace(held_out, split=BEST_STEP)


def load_training(
    name: str,
    config: DataConfig,
    tuning: Sequence[Rows] = (),
    classes: str | None = None,
    select: Callable[[Rows], Iterator[int]] | None = None,
) -> Rows:
    """The training rows of a run: without tuning rows, and limited to `data.train_limit`.

    `classes`: as in sources.load. `select` yields the positions of the usable rows, in order; it is read lazily, only
    until the limit is reached. Raises Unavailable if no row is usable.
    """
    rows = load(name, "train", config, classes)
    if tuning:
        rows = without(rows, tuning)
    if select is not None:
        most = config.train_limit if config.order == "first" else None
        rows = rows.take(list(islice(select(rows), most)))
        if not len(rows):
            raise Unavailable(f"data set {name}: data.max_tokens and the task leave no training row")
    return limited(rows, config.train_limit, config.order)
