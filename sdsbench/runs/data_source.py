"""Resolve data.source=auto, and refuse runs whose data is not available, before a run is planned, named or loaded.

Generated data never replaces a paper's data: auto means `embedded` only under protocol=quick, which is this project's.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdsbench.core.errors import ConfigError, Problem, Unavailable
from sdsbench.data import catalogue, sources
from sdsbench.data.catalogue import DataSet
from sdsbench.data.held_back import tuned_on
from sdsbench.data.sources import Source
from sdsbench.runs.configuration.identity import with_values
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks

OWN_PROTOCOL = "quick"


def resolve_source(config: RunConfig) -> tuple[RunConfig, str]:
    """(configuration with `data.source` resolved, since it is part of a run's id; reason for this source).

    Raises ConfigError if the task reads own files and `data.train` names none, and Unavailable if `auto` finds no
    source for the protocol's data.
    """
    if config.data.train is None and any(data_set.own for data_set in _sets(config)):
        accepted = f"a file of your own training rows, which task={config.task.name} needs"
        raise ConfigError([Problem("data.train", None, accepted, "Set data.train=FILE (docs/data.md).")])
    source, reason = _source(config)
    return with_values(config, {"data.source": source}), reason


def generated(config: RunConfig) -> str:
    """How the run's rows of data.source=embedded relate to the sets that the task names (sources.made_rows)."""
    return sources.made_rows(list(_sets(config)))


def require_data(config: RunConfig) -> None:
    """Raises Unavailable if the resolved source lacks data that the run reads; checks names and folders only."""
    for data_set, split in needs(config):
        sources.require(data_set, split, config.data)


def _source(config: RunConfig) -> tuple[Source, str]:
    if config.data.source != "auto":
        return config.data.source, "asked for"
    if config.data.train:
        return "local", "data.train is set"
    if config.data.root:
        return "local", "data.root is set"
    if sources.hub_reachable():
        return "hub", "the hub can be reached"
    if config.protocol.name == OWN_PROTOCOL:
        return "embedded", f"no data.root and no hub: {generated(config)}"
    ways = dict.fromkeys(f"  {data_set.name}: {sources.source_options(data_set)}" for data_set in _sets(config))
    raise Unavailable(
        f"data.source=auto: data.root is not set, the hub cannot be reached, and generated data is not what protocol="
        f"{config.protocol.name} trains on or reports. Accepted: data.source=local data.root=FOLDER, data.source=hub "
        "(offline: from its cache), or data.source=embedded.\n" + "\n".join(ways)
    )


def _sets(config: RunConfig) -> Iterator[DataSet]:
    """Every data set that the run, or each member of an aggregate task, reads."""
    members = tasks.build(config.task).members
    if members:  # each member's set has the member's name
        yield from (catalogue.get(name) for name in members if name in catalogue.names())
        return
    yield catalogue.get(config.task.train_set)
    yield from (catalogue.get(evaluation.dataset) for evaluation in tasks.build(config.task).evaluations())


def needs(config: RunConfig) -> Iterator[tuple[DataSet, str]]:
    """Every (data set, split) that the run reads."""
    if tasks.build(config.task).members:  # an aggregate task reads no data of its own
        return
    yield catalogue.get(config.task.train_set), "train"
    for evaluation in tasks.build(config.task).evaluations():
        data_set = catalogue.get(evaluation.dataset)
        yield data_set, evaluation.split
        if config.eval.split == "validation":
            yield tuned_on(data_set, evaluation.split, config.data)
