"""`sdsbench status`: where a plan stands, from records, locks and SLURM."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdsbench.sweeps import placing as placings
from sdsbench.sweeps import slurm
from sdsbench.sweeps.overview import print_overview
from sdsbench.sweeps.plan import find, read


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench status", description="Where a plan stands; changes nothing.")
    parser.add_argument("plan", help="folder or name of a plan")
    parser.add_argument("placing", nargs="*", help="output_root=FOLDER where the runs went elsewhere")
    parser.add_argument("--all", action="store_true", help="list every run")
    given = parser.parse_intermixed_args(arguments)
    plan = read(find(given.plan))
    placing = placings.parse(given.placing)
    try:
        notes = dict(slurm.notes(slurm.slot_states(plan)))
    except slurm.SlurmRefused as error:
        notes = {}
        print(f"SLURM does not answer: {error}")
    print(f"plan {plan.folder}")
    print_overview(plan, placing, given.all, notes)
    return 0
