"""`sdsbench show [OVERRIDES]`: the resolved configuration of a run, and a protocol beside its paper's own table."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from sdsbench.configuration.compose import compose_run, iter_leaves
from sdsbench.configuration.identity import PLACING, run_id
from sdsbench.configuration.texts import text


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sdsbench show", description="Prints every key of a run with its value; the same overrides start the run."
    )
    parser.add_argument("overrides", nargs="*", help="method=lora train.lr=1e-3 protocol=lora_sb/glue ...")
    parser.add_argument("--config-dir", action="append", default=[], help="your own YAML files beside ours")
    given = parser.parse_args(arguments)
    config = compose_run(given.overrides, given.config_dir)
    tree = dataclasses.asdict(config)
    paper = tree["protocol"].pop("paper")
    leaves = list(iter_leaves(tree))
    width = max(len(key) for key, _ in leaves)
    for key, value in leaves:
        note = (
            "   (where, not what: not part of the run's name)" if key.split(".")[0] in PLACING or key in PLACING else ""
        )
        print(f"{key:<{width}}  {text(value)}{note}")
    if paper:
        print(f"\n{config.protocol.source} says:")
        for key, value in iter_leaves(paper):
            print(f"  {key:<{width}}  {text(value)}")
    print(f"\nrun id {run_id(config)} (with data.source={config.data.source})")
    return 0
