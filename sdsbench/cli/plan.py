"""`sdsbench plan`: write a sweep's composed configurations to a folder, and print its runs and their estimated cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdsbench.cli.shared import options

if TYPE_CHECKING:
    from sdsbench.sweeps.blocks import Sweep
    from sdsbench.sweeps.plan import Manifest, Plan


@click.command("plan")
@options.overrides
@options.config_dirs
@click.option("--name", help="Name of the plan; default: the sweep's name, else a hash of its runs.")
@options.folder("--folder", help="Folder of the plan; default: results/plans/NAME.")
@options.all_runs
def command(
    overrides: tuple[str, ...], config_dirs: tuple[str, ...], name: str | None, folder: Path | None, all_runs: bool
) -> None:
    """Write a sweep's composed configurations to a folder, the plan; later edits of conf/ do not affect it.

    Overrides are sweep=NAME (`sdsbench ls sweep`), or keys with several values separated by commas, such as
    method=lora,sds_lora seed=0,1,2 model=micro. Planning again under the same name adds the new runs.
    task=glue and task=vtab expand to their tasks; a protocol given without a seed uses its own seeds.
    """
    from sdsbench.core.allowed_names import name_problem
    from sdsbench.core.console import print_wrapped
    from sdsbench.core.errors import ConfigError
    from sdsbench.core.texts import number_of
    from sdsbench.runs.configuration.overrides import with_search_path
    from sdsbench.sweeps import plan as plans
    from sdsbench.sweeps.blocks import define
    from sdsbench.sweeps.freeze import freeze
    from sdsbench.sweeps.overview import print_overview

    if name and (problem := name_problem("--name", name)):
        raise ConfigError([problem])
    words, folders = with_search_path(overrides, config_dirs)
    sweep = define(words, folders)
    manifest, texts = freeze(sweep, folders)
    if name:
        manifest.name = name
    target = folder or plans.PLANS / manifest.name
    before = plans.read(target).manifest if (target / "manifest.json").is_file() else None
    plan, new = plans.write(target, manifest, texts)
    print_wrapped(f"plan {target}: {number_of(new, 'configuration')} added{_tuned_note(plan)}")
    if before is not None and new and before.runs.keys() <= plan.manifest.runs.keys():
        print_wrapped(added_to(plan, before, manifest))
    if taken := protocol_seeds(sweep, manifest):
        print_wrapped(f"seeds of the protocol, since no seed was given: {taken}")
    print_overview(plan, {}, all_runs, memory=True)


def _tuned_note(plan: Plan) -> str:
    """For a plan with tuned cells: why it has more configurations than runs that are needed."""
    return " (one for each value that tuning may try or choose)" if plan.manifest.cells else ""


KINDS = ("task", "model", "protocol")


def added_to(plan: Plan, before: Manifest, new: Manifest) -> str:
    """That runs were added to those of the plan before; a warning if they have another task, model or protocol."""
    from sdsbench.core.texts import number_of

    there, added = _kinds(plan, before), _kinds(plan, new)
    others = [
        f"{key} {', '.join(sorted(added[key]))} beside {', '.join(sorted(there[key]))}"
        for key in KINDS
        if added[key] and there[key] and not added[key] & there[key]
    ]
    text = f"added to the {number_of(len(before.runs), 'run')} of the plan that is there"
    if not others:
        return text
    return f"WARNING: {text}, which are of another kind: {'; '.join(others)}. Another --name makes a plan of its own."


def _kinds(plan: Plan, part: Manifest) -> dict[str, set[str]]:
    """The names of the tasks, models and protocols of a part of a plan's runs."""
    from contextlib import suppress

    from sdsbench.core.errors import SdsbenchError

    distinct = {tuple(run.point.get(key) for key in KINDS): identity for identity, run in part.runs.items()}
    configs = []
    for identity in distinct.values():
        with suppress(SdsbenchError):  # a run that this code cannot read any more is reported by status and sweep
            configs.append(plan.configuration(identity, {}))
    return {key: {getattr(config, key).name for config in configs} for key in KINDS}


def protocol_seeds(sweep: Sweep, manifest: Manifest) -> str:
    """The seeds that were taken from protocols (Composer.points), such as `1, 2, 3`; empty if none were."""
    if any(key.split(".")[0] in ("seed", "seeds") for block in sweep.blocks for key in block):
        return ""
    return ", ".join(dict.fromkeys(run.point["seed"] for run in manifest.runs.values() if "seed" in run.point))
