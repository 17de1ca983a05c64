"""`sdsbench plan`: compose a sweep once into a frozen folder, and say what it holds and costs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.definition import Sweep, define
from sdsbench.sweeps.freeze import freeze
from sdsbench.sweeps.overview import print_overview
from sdsbench.sweeps.plan import Manifest


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sdsbench plan",
        description="Composes a sweep into a frozen folder; editing conf/ afterwards changes nothing in it. Planning "
        "again under the same name adds the runs that are new. task=glue and task=vtab become their tasks; a protocol "
        "that is named without a seed brings its own seeds.",
    )
    parser.add_argument("overrides", nargs="*", help="sweep=NAME, or method=lora,sds_lora seed=0,1,2 model=micro ...")
    parser.add_argument("--name", help="name of the plan; default: the sweep's name, else a hash of its runs")
    parser.add_argument("--folder", type=Path, help=f"where the plan goes; default: {plans.PLANS}/NAME")
    parser.add_argument("--config-dir", action="append", default=[], help="your own YAML files beside ours")
    parser.add_argument("--all", action="store_true", help="list every run")
    given = parser.parse_intermixed_args(arguments)
    sweep = define(given.overrides, given.config_dir)
    manifest, texts = freeze(sweep, given.config_dir)
    if given.name:
        manifest.name = given.name
    folder = given.folder or plans.PLANS / manifest.name
    plan, new = plans.write(folder, manifest, texts)
    print(f"plan {folder}: {new} new run(s)")
    if taken := protocol_seeds(sweep, manifest):
        print(f"seeds of the protocol, since no seed was given: {taken}")
    print_overview(plan, {}, given.all, memory=True)
    return 0


def protocol_seeds(sweep: Sweep, manifest: Manifest) -> str:
    """The seeds that `freeze` took from protocols (Composer.points): `1, 2, 3`; empty where it took none."""
    if any(key.split(".")[0] in ("seed", "seeds") for block in sweep.blocks for key in block.axes):
        return ""
    return ", ".join(dict.fromkeys(run.point["seed"] for run in manifest.runs.values() if "seed" in run.point))
