"""`sdsbench retry --failed`: try runs again that failed; their records keep the earlier attempts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdsbench.cli.submit import send
from sdsbench.cli.sweep import run_here
from sdsbench.sweeps import placing as placings
from sdsbench.sweeps.plan import find, read
from sdsbench.sweeps.states import FAILED, States, root_of


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench retry", description="Tries failed runs of a plan again.")
    parser.add_argument("plan", help="folder or name of a plan")
    parser.add_argument("settings", nargs="*", help=f"{', '.join(placings.KEYS)}; with --slurm also slurm.KEY=VALUE")
    parser.add_argument("--failed", action="store_true", required=True, help="runs whose record says failed or oom")
    parser.add_argument("--slurm", action="store_true", help="send them to SLURM; default: run them here")
    parser.add_argument("--config-dir", action="append", default=[], help="your own YAML files beside ours")
    parser.add_argument("--workers", type=int, help="CPU workers here")
    parser.add_argument("--gpus", help="indices of the GPUs to use here, by commas; default: all")
    parser.add_argument("--deaths", type=int, default=5, help="give a run up whose process died so often at one step")
    given = parser.parse_intermixed_args(arguments)
    plan = read(find(given.plan))
    if given.slurm:
        send(plan, given.settings, given.config_dir, only=FAILED)
        return 0
    given.placing = given.settings
    states = States(plan, root_of(plan, placings.parse(given.placing)))
    failed = [slot.slot.key for slot in states.all() if slot.state in FAILED]
    if not failed:
        print("no run of this plan has failed")
        return 0
    print(f"trying {len(failed)} run(s) again")
    return run_here(plan, given, ["--retry"])
