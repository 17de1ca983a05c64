"""`sdsbench check method=NAME` (or `task=NAME`): the contract that a method or task has to hold, point by point."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("check")
@options.overrides
@options.config_dirs
def command(overrides: tuple[str, ...], config_dirs: tuple[str, ...]) -> None:
    """Check the contract of a method (`method=NAME`), a task (`task=NAME`) or both; default: `model=micro`.

    With neither, the configuration's method is checked. Each point holds, FAILS, or does not apply (-). The exit code
    is 4 if one fails.
    """
    import tempfile
    from pathlib import Path

    from sdsbench.core.errors import TrainingFailed
    from sdsbench.runs.configuration.compose import compose_run

    given = {word.removeprefix("++").partition("=")[0] for word in overrides}
    of_task = "task" in given
    of_method = "method" in given or not of_task
    small = [word for word in ("model=micro", "data.source=embedded") if word.partition("=")[0] not in given]
    config = compose_run([*small, *overrides], config_dirs)

    from sdsbench.checks.method import check_method
    from sdsbench.checks.task import check_task

    failed = 0
    with tempfile.TemporaryDirectory(prefix="sdsbench-check-") as folder:
        contracts = {f"method {config.method.name}": check_method(config, Path(folder))} if of_method else {}
        contracts |= {f"task {config.task.name}": check_task(config)} if of_task else {}
        for name, points in contracts.items():
            click.echo(f"{name} on model {config.model.name}")
            for finding in points:
                click.echo(str(finding))
                failed += finding.holds is False
    if failed:
        raise TrainingFailed(f"{failed} point(s) of the contract fail")
