"""Arguments and options that several verbs have, so that they are written and named the same way in all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sdsbench.cli.shared.completion import complete_override

RUNS = "results/runs"
"""Where runs are looked for without --runs; output_root of conf/config.yaml."""
PLACING = "output_root, device, threads, data.root, sweep.group_size"
"""The keys that matter most of those that may be set for a frozen plan's runs; sweeps/placing.py knows them all."""

overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete_override)
"""Overrides in Hydra's syntax, the same in every verb: runs/configuration/overrides.py parses them."""

config_dirs = click.option(
    "--config-dir",
    "-cd",
    "config_dirs",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Folder with your own YAML files beside ours; repeatable.",
)
plan = click.argument("plan", metavar="PLAN")
"""Folder or name of a plan."""

all_runs = click.option("--all", "all_runs", is_flag=True, help="List every run.")
gpus = click.option(
    "--gpus", metavar="I,J", help="GPUs to use, of those in CUDA_VISIBLE_DEVICES (of all without it); default: all."
)
workers = click.option("--workers", type=int, help="Worker processes; default: one a GPU, or 1 on the CPU.")
deaths = click.option(
    "--deaths", default=5, show_default=True, help="Give a run up whose process died so often at one step."
)
runs = click.option(
    "--runs",
    multiple=True,
    metavar="DIR",
    default=[RUNS],
    show_default=True,
    help="Folder of runs, or a run's folder; repeatable.",
)
where = click.option(
    "--where",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only runs with this value; keys as in an override (eval.limit=64) or in load_runs(); repeatable.",
)
of_plan = click.option("--plan", "of_plan", metavar="NAME", help="Only runs of this plan.")
scorers = click.option(
    "--scorer",
    "scorers",
    multiple=True,
    metavar="EVALUATION=SCORER",
    help="Rank by another scorer, from stored answers; repeatable.",
)
stage = click.option(
    "--stage",
    type=click.Choice(["trained", "best_epoch", "validation", "untrained"]),
    default="trained",
    show_default=True,
    help="Whose scores a grid shows.",
)
reference = click.option(
    "--reference", metavar="METHOD", default="lora", show_default=True, help="What every method is held against."
)
reference_rank = click.option(
    "--reference-rank", type=int, metavar="RANK", help="Of the reference, for every method; default: the method's own."
)
PATH = click.Path(path_type=Path)
claims_file = click.option("--claims", type=PATH, metavar="FILE", help="File of claims; default: results/claims.yaml.")


def folder(*names: str, help: str, default: str | None = None) -> Callable[..., Any]:
    """An option that is a folder."""
    return click.option(*names, type=PATH, metavar="DIR", default=default, show_default=True, help=help)


def format_of(*accepted: str) -> Callable[..., Any]:
    """The form of what a verb prints; the first is the default."""
    return click.option("--format", "kind", type=click.Choice(accepted), default=accepted[0], show_default=True)
