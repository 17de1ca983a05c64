"""Mean columns of a grid, as the tasks define them (Task.means): over GLUE's six tasks, over VTAB's three groups.

A mean covers columns of one model, protocol and setting, either all on real data or all on generated data; a mean over
the evaluations of a single task (commonsense) also needs equal training set and scorer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.titles import model_title
from sdsbench.runs.aggregate import means_of

Key = tuple[str, ...]


class Head(NamedTuple):
    """The key of a grid's column other than a mean."""

    model: str
    protocol: str
    task: str
    train_set: str
    evaluation: str
    scorer: str
    source: str
    setting: str = ""  # the facts that distinguish columns with otherwise equal heads


def mean_columns(columns: Mapping[Head, Column]) -> Iterator[Column]:
    """The mean columns over these columns of one model; a mean is shown if all of its evaluations are there."""
    groups: dict[Key, dict[str, list[Column]]] = {}
    for head, column in columns.items():
        shared = (head.protocol, " (embedded)" if "embedded" in head.source else "", head.setting)
        own: Key = (head.task, *shared, head.train_set, head.scorer)
        family: Key = (head.task.split("/")[0], *shared)
        for key in (own, family):
            if means_of(key[0]) and _of_several_runs(key[0]) == (key is family):
                groups.setdefault(key, {}).setdefault(head.evaluation, []).append(column)
    for key, having in groups.items():
        others = [other for other in groups if other[0] == key[0] and other != key]
        differing = [part for i, part in enumerate(key) if i and any(part != other[i] for other in others)]
        yield from _of_group(key, "/".join(part.strip() for part in differing), having)


def _of_several_runs(task: str) -> bool:
    from sdsbench.tasks.base import lookup
    from sdsbench.tasks.classification import Aggregate

    return issubclass(lookup(task)[0], Aggregate)


def _of_group(key: Key, differing: str, having: Mapping[str, Sequence[Column]]) -> Iterator[Column]:
    """The means of one task; none if an evaluation has two columns, because the choice would be ambiguous."""
    means = means_of(key[0])
    leaves = {part for parts in means.values() for part in parts if part not in means}
    used = [columns for evaluation, columns in having.items() if evaluation in leaves]
    if len(used) < 2 or any(len(columns) > 1 for columns in used):
        return
    first = used[0][0]
    model = str(first.where["model"])
    names = {evaluation: columns[0].name for evaluation, columns in having.items()}
    for mean, parts in means.items():
        if any(part not in names for part in parts):
            continue  # no row has all parts
        names[mean] = f"{model}/mean of {mean}" + (f"/{differing}" if differing else "")
        yield Column(
            names[mean],
            f"mean of {mean}{key[2]}" + (f", {differing}" if differing else ""),
            {"model": model},
            stage=first.stage,
            group=model_title(model),
            format=first.format,
            better=first.better,
            parts=tuple(names.get(part, f"{model}/{part}") for part in parts),
        )
