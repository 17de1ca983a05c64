"""Start a run from Python with the overrides of the command line: `sdsbench.run(["method=lora", "task=gsm8k"])`."""

from __future__ import annotations

from collections.abc import Sequence

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.record import Record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.tasks import base as tasks


def run(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Record:
    """Train and evaluate a run, or return the record of the finished run; overrides are in Hydra's syntax.

    Raises ConfigError with every problem (also for aggregate tasks such as task=glue, which are several runs), and the
    errors of `execute`.
    """
    config = compose_run(overrides, config_dirs)
    if members := tasks.build(config.task).members:
        accepted = f"a task of one run, such as {members[0]}"
        raise ConfigError([Problem("task", config.task.name, accepted, "Give each of its tasks to a call of its own.")])
    return execute(config)
