"""`sdsbench check method=NAME`: the contract that a method (or with `--task` a task) has to hold, point by point."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("check")
@options.overrides
@options.config_dirs
@click.option("--task", "of_task", is_flag=True, help="Check the task of the configuration instead of its method.")
def command(overrides: tuple[str, ...], config_dirs: tuple[str, ...], of_task: bool) -> None:
    """Check the contract of a method (or task) on a small model; default: `model=micro`.

    Each point holds, FAILS, or does not apply (-). The exit code is 4 if one fails.
    """
    import tempfile
    from pathlib import Path

    from sdsbench.core.errors import TrainingFailed
    from sdsbench.runs.configuration.compose import compose_run

    given = {word.partition("=")[0] for word in overrides}
    small = [word for word in ("model=micro", "data.source=embedded") if word.partition("=")[0] not in given]
    short = ["task.max_new_tokens=4"] if "task" not in given else []
    config = compose_run([*small, *short, *overrides], config_dirs)

    from sdsbench.checks.method import check_method
    from sdsbench.checks.task import check_task

    failed = 0
    with tempfile.TemporaryDirectory(prefix="sdsbench-check-") as folder:
        for finding in check_task(config) if of_task else check_method(config, Path(folder)):
            click.echo(str(finding))
            failed += finding.holds is False
    if failed:
        raise TrainingFailed(f"{failed} point(s) of the contract fail")
