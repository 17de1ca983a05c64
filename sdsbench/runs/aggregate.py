"""Aggregate tasks, which consist of several runs (task=glue, task=vtab): their member runs and the means over them.

Each mean is defined once, by the task (Task.means). It is printed here after a direct run of all members; grid tables
compute it from records (tables/means.py).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache

from omegaconf import OmegaConf

from sdsbench.core.console import print_now
from sdsbench.core.errors import Interrupted, SdsbenchError
from sdsbench.core.garbage_collection import importing
from sdsbench.core.record import Record
from sdsbench.runs.banner import announcement
from sdsbench.runs.configuration.compose import compose_run, compose_tree, options
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks


def member_runs(config: RunConfig, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> list[RunConfig]:
    """One configuration for each member of the aggregate task of `config`; `overrides` are those that composed it."""
    others = [line for line in overrides if not line.lstrip("+").startswith(("task=", "task.members="))]
    members = tasks.build(config.task).members
    return [compose_run([*others, f"task={member}"], config_dirs) for member in members]


@lru_cache(maxsize=256)
def means_of(task: str) -> Mapping[str, Sequence[str]]:
    """The means that a task of conf/task defines (mean -> parts), ordered so that parts precede means that use them."""
    try:
        kind, config_class = tasks.lookup(task)
    except KeyError:
        return {}
    if kind.means is tasks.Task.means or task not in options("task"):
        return {}
    composed, _ = compose_tree([f"task={task}"])
    assert composed is not None
    tree = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(tree, dict)
    return kind(config_class.model_validate(tree["task"])).means()


def means_over(task: str) -> dict[str, dict[str, list[str]]]:
    """The means that include evaluations of this task: its own, and those of aggregate tasks that it belongs to."""
    found = {name: means_of(name) for name in dict.fromkeys([task, task.partition("/")[0]])}
    return {name: {mean: list(parts) for mean, parts in means.items()} for name, means in found.items() if means}


def execute_announced(config: RunConfig) -> Record:
    """Run one configuration; print a summary of it first, since importing torch may take a while."""
    print_now(announcement(config))
    with importing():
        from sdsbench.runs.execute import execute
    return execute(config)


def execute_members(aggregate: tasks.Task, configs: Sequence[RunConfig]) -> tuple[int, float | None]:
    """Run every member of an aggregate task, one after another; a member that fails does not stop the others.

    Returns the highest exit code of the members, and the mean over all of them (None if one has no score).
    """
    records, codes = [], [0]
    for config in configs:
        try:
            records.append(execute_announced(config))
        except Interrupted:
            raise
        except SdsbenchError as error:
            print(f"sdsbench: {config.task.name}: {error}", file=sys.stderr)
            codes.append(error.exit_code)
    text, values = means_text(aggregate.name, aggregate.means(), records)
    print(text)
    return max(codes), values.get(aggregate.name)


def means_text(
    name: str, means: Mapping[str, Sequence[str]], records: Sequence[Record]
) -> tuple[str, dict[str, float]]:
    """(text lines, values by name) of the headline scores after training and every mean whose parts all exist."""
    scores = (score for record in records for score in record.scores if score.headline and not score.retention)
    values = {score.evaluation: score.value for score in scores if score.stage == "trained"}
    lines = [f"{name}: headline scores after training"]
    lines += [f"  {evaluation:<24} {100 * value:.2f}" for evaluation, value in values.items()]
    for mean, parts in means.items():
        missing = [part for part in parts if part not in values]
        if missing:
            lines.append(f"  mean {mean:<19} not known: {', '.join(missing)} missing")
        else:
            values[mean] = sum(values[part] for part in parts) / len(parts)
            lines.append(f"  mean {mean:<19} {100 * values[mean]:.2f}")
    return "\n".join(lines), values
