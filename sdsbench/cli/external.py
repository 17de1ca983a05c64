"""`sdsbench external`: import W&B run folders or peft method_comparison results; reports show them apart."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdsbench.core.errors import Unavailable


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench external", description=__doc__)
    parser.add_argument("tool", choices=["wandb", "peft"])
    parser.add_argument(
        "source", type=Path, nargs="+", help="wandb: run folders or a folder of them; peft: JSON files or a folder"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/external"), help="where records go (results/external)"
    )
    given = parser.parse_args(arguments)

    from sdsbench.results.importers import external, peft, wandb

    for source in given.source:
        if not source.exists():
            raise Unavailable(f"{source}: no such file or folder")
        if given.tool == "wandb":
            records = [wandb.read(folder) for folder in wandb.run_folders(source)]
        else:
            records = [peft.read(path) for path in (sorted(source.glob("*.json")) if source.is_dir() else [source])]
        if not records:
            raise Unavailable(f"{source}: holds nothing that {given.tool} writes")
        for record in records:
            print(external.write(given.output, record))
    return 0
