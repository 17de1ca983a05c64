"""`sdsbench bundle PLAN_OR_RUNS`: pack runs into one zip file, with a hash of every file and no private data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdsbench.cli.shared import options

if TYPE_CHECKING:
    from sdsbench.sweeps.plan import Plan


@click.command("bundle")
@click.argument("chosen", nargs=-1, metavar="PLAN|RUNS...", required=True)
@options.runs
@click.option("--output", "-o", type=options.PATH, metavar="NAME.zip", required=True, help="The file to write.")
@click.option(
    "--verdicts",
    is_flag=True,
    help="Without texts of answers, a tenth of the size: tables can read it, but answers cannot be graded again.",
)
def command(chosen: tuple[str, ...], runs: tuple[str, ...], output: Path, verdicts: bool) -> None:
    """Put the runs of a PLAN, or folders of runs, single runs (folder, id or the beginning of an id) and other bundles,
    into one zip file.

    Tables, verdicts and the report read it with --runs NAME.zip; `sdsbench reproduce NAME.zip` trains its runs again.
    """
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.core.errors import Refused
    from sdsbench.core.texts import number_of
    from sdsbench.results.bundles.write import write
    from sdsbench.sweeps import plan as plans

    if output.suffix != ".zip":
        raise Refused(f"--output {output}: accepted: a name that ends with .zip")
    plan, places, unfinished = None, [], 0
    if len(chosen) == 1 and plans.is_plan(chosen[0]):
        plan = plans.named(chosen[0])
        places = list(runs)
        if places == [options.RUNS]:
            places = [plan.placing["output_root"]]
            unfinished = _unfinished(plan, Path(places[0]))
    else:
        alone = len(chosen) == 1  # a plan is packed alone
        places = [word if Path(word).exists() else str(run_folder(word, runs, or_plan=alone)) for word in chosen]
    written = write(output, places, plan, verdicts)
    if plan is not None and unfinished:
        print(f"{plan.manifest.name} is not finished: {unfinished} of its runs have not ended and are not in it")
    for remark in written.remarks:
        print(remark)
    print(f"{output}: {number_of(written.runs, 'run')}")


def _unfinished(plan: Plan, runs: Path) -> int:
    """Number of the plan's runs in the folder `runs` that have not ended."""
    from sdsbench.sweeps.states import OVER, States

    return sum(now.state not in OVER for now in States(plan, runs).all())
