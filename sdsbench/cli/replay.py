"""`sdsbench replay RUN...`: send runs' metrics.jsonl to Weights & Biases, as the runs themselves would have."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("replay")
@click.argument("chosen", nargs=-1, required=True, metavar="RUN...")
@options.runs
@click.option("--project", default="sdsbench", show_default=True)
@click.option("--mode", type=click.Choice(["offline", "online"]), default="offline", show_default=True)
def command(chosen: tuple[str, ...], runs: tuple[str, ...], project: str, mode: str) -> None:
    """Send the metrics of every RUN (its folder, its id or the beginning of its id) to Weights & Biases."""
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.runs.tracking.tracker_config import TrackerConfig
    from sdsbench.runs.tracking.trackers import replay

    folders = [run_folder(text, runs) for text in chosen]
    missing = [str(folder) for folder in folders if not (folder / "metrics.jsonl").is_file()]
    if missing:
        raise ConfigError([Problem("runs", name, "a run folder with metrics.jsonl") for name in missing])
    for folder in folders:
        tracker = TrackerConfig.model_validate({"name": "wandb", "project": project, "mode": mode})
        print(f"{folder.name}: {replay(tracker, folder)} steps")
