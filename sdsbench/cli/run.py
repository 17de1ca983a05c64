"""`sdsbench [run] [OVERRIDES]`: one run, or several with -m: train, evaluate, write a record."""

from __future__ import annotations

import click

from sdsbench.cli.shared import options


@click.command("run")
@options.overrides
@options.config_dirs
@click.option("-m", "--multirun", is_flag=True, help="One run for each combination of values given by commas.")
@click.option("-c", "--cfg", type=click.Choice(["job", "hydra", "all"]), help="Print the configuration; run nothing.")
@click.option("--resolve", is_flag=True, help="With --cfg: resolve all ${...}.")
@click.option("-p", "--package", metavar="KEY", help="With --cfg: print only this section.")
@click.option(
    "--info",
    is_flag=False,
    flag_value="all",
    type=click.Choice(["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]),
    help="Print information about Hydra; run nothing. Default: all.",
)
@click.option("--hydra-help", is_flag=True, help="Hydra's own help.")
def command(
    overrides: tuple[str, ...],
    config_dirs: tuple[str, ...],
    multirun: bool,
    cfg: str | None,
    resolve: bool,
    package: str | None,
    info: str | None,
    hydra_help: bool,
) -> int:
    """Train, evaluate and write a record; a finished run is found and not run again.

    The word `run` may be left out. Keys are set as KEY=VALUE (Hydra's syntax, no dashes), for example
    method=sds_lora task=gsm8k train.lr=1e-3; `sdsbench ls` names the choices and `sdsbench show` every key. ++KEY=VALUE
    is the same as KEY=VALUE; +GROUP=NAME takes a file of a group that only your --config-dir has, such as
    +experiment=NAME.
    """
    if sum(map(bool, (multirun, cfg, info, hydra_help))) > 1:
        raise click.UsageError("-m, --cfg, --info and --hydra-help: one of them at a time.")
    if (resolve or package) and not cfg:
        raise click.UsageError("--resolve and --package go with --cfg.")
    valued = {"--cfg": cfg, "--package": package, "--info": info}
    flags = [word for name, value in valued.items() if value for word in (name, value)]
    flags += ["--multirun"] * multirun + ["--resolve"] * resolve + ["--hydra-help"] * hydra_help
    if flags:
        from sdsbench.cli.shared.hydra_jobs import run_hydra

        return run_hydra(flags, overrides, config_dirs)

    from sdsbench.runs.configuration.compose import compose_run

    config = compose_run(overrides, config_dirs)  # before the imports of a run, so that mistyped keys are refused soon
    from sdsbench.runs.aggregate import execute_announced, execute_members, member_runs
    from sdsbench.tasks import base as tasks

    task = tasks.build(config.task)
    if task.members:  # an aggregate task, one run per member (glue, vtab)
        code, _ = execute_members(task, member_runs(config, overrides, config_dirs))
        return code
    execute_announced(config)
    return 0
