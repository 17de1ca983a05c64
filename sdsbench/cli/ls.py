"""`sdsbench ls [GROUP]`: what can be chosen, a line each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.runs.configuration.compose import GROUPS, conf_folder, options

LISTED = (*GROUPS, "sweep", "slurm")  # the last two belong to `plan` and `submit`


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench ls", description="Lists the choices of every group, or of one.")
    parser.add_argument("group", nargs="?", help=", ".join(LISTED))
    parser.add_argument("--config-dir", action="append", default=[], help="your own YAML files beside ours")
    given = parser.parse_args(arguments)
    if given.group is not None and given.group not in LISTED:
        raise ConfigError([Problem("group", given.group, ", ".join(LISTED))])
    for group in [given.group] if given.group else LISTED:
        choices = options(group, given.config_dir)
        width = max(map(len, choices))
        print(f"{group}=")
        for choice in choices:
            print(f"  {choice:<{width}}  {_headline(group, choice)}".rstrip())
    return 0


def _headline(group: str, choice: str) -> str:
    """The first comment of a choice's file."""
    path = conf_folder() / group / f"{choice}.yaml"
    if not path.is_file():
        return "(yours)"
    lines = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
    return lines[0].lstrip("# ").split("    ")[0] if lines else ""
