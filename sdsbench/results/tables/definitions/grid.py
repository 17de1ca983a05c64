"""Any `method x task` grid, made from what the records hold."""

from __future__ import annotations

from collections.abc import Sequence

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import Score
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.means import Head, mean_columns
from sdsbench.results.tables.names import METHODS, method_title, model_title, task_title
from sdsbench.results.tables.runs import Run


def grid(runs: Sequence[Run], stage: str = "trained", name: str = "grid") -> Table:
    """Rows: methods and ranks. Columns: evaluations, apart for each model, protocol, task, training set and scorer.

    So only runs that a reader may compare share a column. A model's columns end with the means that its tasks define
    (tables/means.py). Raises Unavailable where no run has a score of `stage`.
    """
    heads = sorted({_head(run, score) for run in runs for score in run.record.scores
                    if score.headline and score.stage == stage})  # fmt: skip
    if not heads:
        raise Unavailable(f"no run has a {stage} score; nothing to put into a grid")
    plain = {head: _column(head, stage, heads) for head in heads}
    columns: list[Column] = []
    for model in dict.fromkeys(head.model for head in heads):
        own = {head: column for head, column in plain.items() if head.model == model}
        columns += [*own.values(), *mean_columns(own)]
    order = list(METHODS)
    members = _rows(runs, stage)
    ranked = sorted(
        members, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[0], key[1] or 0, key[2])
    )
    rows = tuple(_row(key, members[key]) for key in ranked)
    return Table(name, "Methods by tasks", rows, tuple(columns), real_data=False)


RowKey = tuple[str, int | None, str]  # method, rank, variant


def _rows(runs: Sequence[Run], stage: str) -> dict[RowKey, set[str]]:
    """Run ids by row. Runs of a method that share a column but not their settings become rows of their own."""
    rows: dict[RowKey, set[str]] = {}
    groups: dict[tuple[str, int | None, Head | None], list[Run]] = {}
    for run in runs:
        heads: set[Head | None] = {
            _head(run, score) for score in run.record.scores if score.headline and score.stage == stage
        }
        if (
            not heads and run.record.status == "done"
        ):  # a tuning run, say: no row of its own, but cells say it is left out
            rows.setdefault((run.record.method, run.record.rank, ""), set()).add(run.id)
            continue
        for head in heads or {None}:
            groups.setdefault((run.record.method, run.record.rank, head), []).append(run)
    for (method, rank, head), members in groups.items():
        named = [run for run in members if run.record.tuning] or members  # a tuning grid is one row, left out by cells
        varying = _varying(named) if head else []  # unfinished runs join the method's plain row
        for run in members:
            variant = (
                ", ".join(f"{key.removeprefix('config.')}={run.flat[key]}" for key in varying if key in run.flat)
                if run in named
                else ""
            )
            rows.setdefault((method, rank, variant), set()).add(run.id)
    return rows


def _varying(runs: Sequence[Run]) -> list[str]:
    """Settings in which these runs differ."""
    keys = {key for run in runs for key in run.flat if key.startswith(("config.method.", "config.train."))}
    return sorted(key for key in keys if len({str(run.flat.get(key)) for run in runs}) > 1)


def _row(key: RowKey, ids: set[str]) -> Row:
    method, rank, variant = key
    name = method if rank is None else f"{method}_r{rank}"
    title = method_title(method, rank)
    if variant:
        name, title = f"{name}[{variant}]", f"{title}, {variant}"
    return Row(name, title, {"run_id": tuple(sorted(ids))})


def _head(run: Run, score: Score) -> Head:
    record = run.record
    source = run.flat["data_source"]
    return Head(record.model, record.protocol, record.task, record.train_set, score.evaluation, score.scorer, source)


def _column(head: Head, stage: str, heads: Sequence[Head]) -> Column:
    model, protocol, task, train_set, evaluation, scorer, source = head
    alike = [other for other in heads if other[0] == model and other[4] == evaluation]
    name = f"{model}/{evaluation}"
    title = task_title(evaluation) + (" (embedded)" if "embedded" in source else "")
    if len(alike) > 1:  # say in what they differ
        parts = [head[i] for i in (1, 2, 3, 5, 6) if len({other[i] for other in alike}) > 1]
        name, title = f"{name}/{'/'.join(parts)}", f"{title}, {', '.join(parts)}"
    where = {"model": model, "protocol": protocol, "task": task, "train_set": train_set, "data_source": source}
    return Column(name, title, where, evaluation=evaluation, scorer=scorer, stage=stage, group=model_title(model))
