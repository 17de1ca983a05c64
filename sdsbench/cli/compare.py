"""`sdsbench compare`: which method should I use, on my model and task, within a budget of time?"""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("compare")
@options.overrides
@options.config_dirs
@click.option("--methods", required=True, metavar="NAME,NAME", help="The methods to choose from.")
@click.option("--budget", required=True, metavar="TIME", help="Time budget, such as 30m, 4h or 2d.")
@click.option("--reference", default="", metavar="METHOD", help="Method to compare with; default: the first.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Number of runs at a time.")
@click.option("--name", default="", help="Name of the plan; default: a hash of the arguments.")
@click.option("--plan-only", is_flag=True, help="Train one run to measure its time, write the plan, and stop.")
def command(
    overrides: tuple[str, ...],
    config_dirs: tuple[str, ...],
    methods: str,
    budget: str,
    reference: str,
    workers: int,
    name: str,
    plan_only: bool,
) -> None:
    """Tune all methods by the same rule, run fresh seeds, and recommend one method.

    Overrides are those of a run: task, model, data, steps. A first run measures the time of a run; the plan that fits
    into the budget is printed before it starts. The same command resumes an interrupted comparison. The results are a
    report in results/comparisons/NAME, one sentence, and the chosen method's best run, exported as adapter or model.
    """
    chosen = [word for word in methods.split(",") if word]
    _refuse_early(chosen, budget, config_dirs)
    from sdsbench.studies.comparison.comparison import compare

    compare(
        overrides, chosen, budget, reference,
        workers=workers, name=name, config_dirs=config_dirs, only_plan=plan_only,
    )  # fmt: skip


def _refuse_early(methods: list[str], budget: str, config_dirs: tuple[str, ...]) -> None:
    """Raises ConfigError for unknown methods and an unreadable budget, before imports that take many seconds."""
    from sdsbench.core.clock import not_a_time, seconds_of
    from sdsbench.core.errors import ConfigError
    from sdsbench.runs.configuration import choices

    problems = choices.unknown("--methods", methods, "method", config_dirs)
    if seconds_of(budget) is None:
        problems.append(not_a_time("--budget", budget))
    if problems:
        raise ConfigError(problems)
