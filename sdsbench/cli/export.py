"""`sdsbench export RUN_OR_PLAN FOLDER`: export trained adapters for peft, or merged into plain model folders."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options

DTYPES = ("float32", "bfloat16")


@click.command("export")
@click.argument("run", metavar="RUN_OR_PLAN")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--best", is_flag=True, help="For a plan: export only the finished run with the best score.")
@click.option(
    "--form",
    type=click.Choice(["peft", "merged"]),
    help="Default: peft if the method can be exported to it (full fine-tuning cannot), else merged.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float32",
    show_default=True,
    help="Data type of merged weights; bfloat16 rounds the update.",
)
@click.option("--base", metavar="NAME", help="Base model named in the adapter's config; default: the run's.")
@click.option("--model", metavar="DIR", help="Current folder of the base model, for runs with model.source=folder.")
@options.runs
def command(
    run: str,
    folder: Path,
    best: bool,
    form: str | None,
    dtype: str,
    base: str | None,
    model: str | None,
    runs: tuple[str, ...],
) -> None:
    """Write what a finished run trained to FOLDER; of a plan, each finished run to a folder of its own in it.

    RUN_OR_PLAN is a run's folder, its id or a prefix of its id, or the folder or name of a plan. The form peft can be
    loaded with peft.PeftModel; merged is a plain model folder. No data is needed. The command prints how to load and
    serve the export, and how much rounding to bfloat16 changes the update.
    """
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.runs.export import export
    from sdsbench.runs.serving import lines

    if folder.exists() and any(folder.iterdir()):
        raise ConfigError([Problem("folder", str(folder), "an empty or new folder")])
    for source, target in _sources(run, folder, best, runs):
        for line in lines(export(source, target, form, dtype, base, model)):
            click.echo(line)


def _sources(run: str, folder: Path, best: bool, runs: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """(run folder, target folder) for each run to export."""
    from sdsbench.cli.shared.damage import report_damaged
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.core.console import print_wrapped
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.sweeps import plan as plans
    from sdsbench.sweeps.best import best_of, finished_runs

    if not plans.is_plan(run):
        if best:
            raise ConfigError([Problem("--best", run, "a plan: its folder or name", "A run is the only one of it.")])
        return [(run_folder(run, runs, or_plan=True), folder)]
    found, damaged = finished_runs(plans.named(run), None if runs == (options.RUNS,) else [Path(r) for r in runs])
    report_damaged(damaged)
    if best:
        chosen, said = best_of(found)
        print_wrapped(said)
        return [(chosen, folder)]
    saved = [(source, folder / record.run_id) for source, record in found if (source / "adapter").is_dir()]
    if len(saved) < len(found):
        print_wrapped(f"{len(found) - len(saved)} of {len(found)} finished runs saved nothing (train.save)")
    if not saved:
        raise ConfigError([Problem("plan", run, "runs that saved what they trained", "train.save=adapter, or all.")])
    return saved
