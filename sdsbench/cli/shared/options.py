"""Arguments and options shared by several commands, defined once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sdsbench.cli.shared.completion import complete_override

RUNS = "results/runs"
"""Folder of runs if --runs is not given: the default of output_root in conf/config.yaml."""
PLACING = "output_root, device, threads, data.root, sweep.group_size"
"""The most important keys that may be set for a frozen plan's runs; sweeps/placing.py has all of them."""

overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete_override)
"""Overrides in Hydra's syntax, parsed by runs/configuration/overrides.py in every command."""

config_dirs = click.option(
    "--config-dir",
    "-cd",
    "config_dirs",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Folder with additional YAML files of your own; repeatable.",
)
plan = click.argument("plan", metavar="PLAN")
"""The argument PLAN: folder or name of a plan."""

all_runs = click.option("--all", "all_runs", is_flag=True, help="List every run.")
gpus = click.option(
    "--gpus", metavar="I,J", help="GPUs to use (among those in CUDA_VISIBLE_DEVICES, if it is set); default: all."
)
workers = click.option("--workers", type=int, help="Worker processes; default: one per GPU, or 1 on the CPU.")
deaths = click.option(
    "--deaths",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Give up a run whose process died this many times at one step.",
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
    help="Only runs with this value; keys as in overrides (eval.limit=64) or columns of load_runs(); repeatable.",
)
of_plan = click.option("--plan", "of_plan", metavar="NAME", help="Only runs of this plan.")
scorers = click.option(
    "--scorer",
    "scorers",
    multiple=True,
    metavar="EVALUATION=SCORER",
    help="Rank by another scorer, computed from stored answers; repeatable.",
)
stage = click.option(
    "--stage",
    type=click.Choice(["trained", "best_epoch", "validation", "untrained"]),  # core/record.py: STAGES
    default="trained",
    show_default=True,
    help="Stage whose scores the grid shows.",
)
reference = click.option(
    "--reference", metavar="METHOD", default="lora", show_default=True, help="Method that all others are compared with."
)
reference_rank = click.option(
    "--reference-rank",
    type=int,
    metavar="RANK",
    help="Rank of the reference; default: each compared method's rank.",
)
PATH = click.Path(path_type=Path)
claims_file = click.option(
    "--claims", type=PATH, metavar="FILE", help="Claims file; default: results/claims.yaml and those of plugins."
)


def _load_plugins(ctx: click.Context, _option: click.Parameter, modules: tuple[str, ...]) -> None:
    if modules and not ctx.resilient_parsing:
        from sdsbench.core import plugins

        plugins.load(modules)


plugins = click.option(
    "--plugin",
    multiple=True,
    metavar="MODULE",
    expose_value=False,
    callback=_load_plugins,
    help="Import a plugin that is not installed, a module that Python can import; repeatable.",
)


def folder(*names: str, help: str, default: str | None = None) -> Callable[..., Any]:
    """An option whose value is a folder."""
    return click.option(*names, type=PATH, metavar="DIR", default=default, show_default=True, help=help)


def format_of(*accepted: str) -> Callable[..., Any]:
    """The option --format with these values; the first is the default."""
    return click.option("--format", "kind", type=click.Choice(accepted), default=accepted[0], show_default=True)
