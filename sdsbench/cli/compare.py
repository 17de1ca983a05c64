"""`sdsbench compare`: which method should I use, on my model and task, within a budget of time?"""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("compare")
@options.overrides
@options.config_dirs
@click.option("--methods", required=True, metavar="NAME,NAME", help="The methods to choose from.")
@click.option("--budget", required=True, metavar="TIME", help="What it may take, such as 30m, 4h or 2d.")
@click.option("--reference", default="", metavar="METHOD", help="What the others are held against; default: the first.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Runs at a time.")
@click.option("--name", default="", help="Of the plan; default: a hash of the question.")
@click.option("--plan-only", is_flag=True, help="Plan it, say what the budget buys, and stop.")
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
    """Tune every method by the same rule, run fresh seeds, and say which one to take.

    Overrides are those of a run: task, model, data, steps. The first run shows what a run takes; the plan that fits
    into the budget is printed before it starts. The same command goes on where it was stopped. It ends with a report
    in results/comparisons/NAME, one sentence, and the chosen method's best run, exported: an adapter or a plain model.
    """
    from sdsbench.studies.comparison.comparison import compare

    compare(
        overrides, [word for word in methods.split(",") if word], budget, reference,
        workers=workers, name=name, config_dirs=config_dirs, only_plan=plan_only,
    )  # fmt: skip
