"""`sdsbench replay RUN...`: send the logs of earlier runs to Weights & Biases."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("replay")
@click.argument("chosen", nargs=-1, required=True, metavar="RUN...")
@options.runs
@click.option("--project", help="Default: WANDB_PROJECT, else sdsbench.")
@click.option(
    "--mode", type=click.Choice(["auto", "offline", "online"]), default="auto", show_default=True,
    help="auto: WANDB_MODE, else online if W&B has an API key.",
)  # fmt: skip
def command(chosen: tuple[str, ...], runs: tuple[str, ...], project: str | None, mode: str) -> None:
    """Send the complete log of each RUN (its folder, its id or a prefix of its id) to Weights & Biases."""
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.runs.tracking.tracker_config import TrackerConfig
    from sdsbench.runs.tracking.view import replay, require

    folders = [run_folder(text, runs) for text in chosen]
    missing = [str(folder) for folder in folders if not (folder / "metrics.jsonl").is_file()]
    if missing:
        raise ConfigError([Problem("runs", name, "a run folder with metrics.jsonl") for name in missing])
    tracker = TrackerConfig.model_validate({"name": "wandb", "project": project, "mode": mode})
    require(tracker)
    for folder in folders:
        print(f"{folder.name}: {replay(tracker, folder)} steps")
