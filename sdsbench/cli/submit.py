"""`sdsbench submit`: submit the remaining runs of a plan to SLURM as a job array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sdsbench.cli.shared import options

if TYPE_CHECKING:
    from sdsbench.sweeps.plan import Plan
    from sdsbench.sweeps.slurm_config import SlurmConfig
    from sdsbench.sweeps.states import SlotState


@click.command("submit")
@options.plan
@options.overrides
@options.config_dirs
@click.option("--dry-run", is_flag=True, help="Print the sbatch input and submit nothing.")
def command(plan: str, overrides: tuple[str, ...], config_dirs: tuple[str, ...], dry_run: bool) -> None:
    """Submit the remaining runs of a PLAN to SLURM; runs that have ended, are running or queued are skipped.

    Overrides are slurm=NAME (`sdsbench ls slurm`), slurm.KEY=VALUE such as slurm.time=4h, and those of `sdsbench
    sweep`. Weights and data must be in the caches (`sdsbench fetch`), as runs use no network on compute nodes.
    """
    from sdsbench.sweeps.plan import named
    from sdsbench.sweeps.states import FAILED

    found = named(plan)
    slots = send(found, overrides, config_dirs, dry_run=dry_run)
    if failed := sum(slot.state in FAILED for slot in slots):
        click.echo(f"{failed} run(s) have failed and are not sent: `sdsbench retry {plan}` tries them again", err=True)


def send(
    plan: Plan, settings: Sequence[str], config_dirs: Sequence[str], retry: bool = False, dry_run: bool = False
) -> list[SlotState]:
    """Submit the slots of a plan that have not ended and are not in SLURM's queue (with `retry` also failed ones).

    A slot is one run of the plan, whose configuration may depend on tuning. Returns the states of all slots.
    """
    from sdsbench.core.texts import number_of
    from sdsbench.sweeps import placing as placings
    from sdsbench.sweeps import slurm
    from sdsbench.sweeps.fetch import require_downloaded
    from sdsbench.sweeps.slurm_config import configure, split_slurm_words
    from sdsbench.sweeps.states import FAILED, OVER, states_of

    asked, others = split_slurm_words(settings)
    placing = placings.parse(others)
    config = configure(asked, config_dirs)
    _require_device(plan, config, placing)
    in_queue = {key for key, (_, state, _) in slurm.slot_states(plan).items() if state in slurm.LIVE}
    slots = list(states_of(plan, placing).all())
    skipped = {"running", *OVER} - set(FAILED if retry else ())
    wanted = [slot for slot in slots if slot.slot.key not in in_queue and slot.state not in skipped]
    if not wanted:
        print("nothing to send: every run is over, running, or in the queue")
        return slots
    stages = _stages(wanted)
    if dry_run:
        parts = [part for stage in stages for part in slurm.arrays(stage, config)]
        for part in parts:
            print(slurm.script(plan, slurm.next_folder(plan), len(part), config, placing, retry))
        return slots
    slurm.require_slurm()
    require_downloaded(plan, placing)
    jobs = slurm.submit(plan, stages, config, placing, retry)
    tasks = sum(-(-len(stage) // config.runs_per_task) for stage in stages)
    print(
        f"sent {number_of(len(wanted), 'run')} in {number_of(tasks, 'task')} as job {', '.join(jobs)}; "
        f"`sdsbench status {plan.folder}`"
    )
    return slots


def _stages(wanted: Iterable[SlotState]) -> list[list[str]]:
    """Slot keys in three stages: runs that wait for none, extensions of tuning grids, runs with tuned values.

    A stage may be empty: its place decides whether its runs wait for the jobs that were submitted before.
    """
    stages: list[list[str]] = [[], [], []]
    for slot in wanted:
        waits = slot.state == "waiting"
        stages[(2 if slot.slot.cell is not None else 1) if waits else 0].append(slot.slot.key)
    return stages


def _require_device(plan: Plan, config: SlurmConfig, placing: Mapping[str, Any]) -> None:
    """Raises ConfigError if the job requests GPUs but the runs are configured for the CPU."""
    from sdsbench.core.errors import ConfigError, Problem

    device = placing.get("device", plan.placing["device"])
    if config.gpus and device == "cpu":
        advice = "slurm=cpu asks for no GPU; device=cuda on this command line uses them."
        raise ConfigError([Problem("device", device, f"cuda, since slurm.gpus={config.gpus}", advice)])
