"""`sdsbench export RUN FOLDER`: a finished run's adapter for peft, or merged into a plain model folder."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options

DTYPES = ("float32", "bfloat16")


@click.command("export")
@click.argument("run", metavar="RUN")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--form", type=click.Choice(["peft", "merged"]), default="peft", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float32",
    show_default=True,
    help="Of merged weights; bfloat16 rounds the update.",
)
@options.runs
def command(run: str, folder: Path, form: str, dtype: str, runs: tuple[str, ...]) -> None:
    """Write the adapter of a finished RUN (its folder, its id or the beginning of its id) to FOLDER.

    The form peft opens with peft.PeftModel; merged is a plain model folder. What rounding to bfloat16 does to the
    update is printed.
    """
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.runs.export import export, recorded_config

    source = run_folder(run, runs)
    if not (source / "adapter").is_dir():
        accepted = "a run folder with adapter/ (finished, and not full fine-tuning)"
        raise ConfigError([Problem("run", str(source), accepted)])
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError([Problem("folder", str(folder), "an empty or new folder")])
    for name, value in export(recorded_config(source), source, folder, form, dtype).items():
        print(f"{name:<22} {value:.4g}")
