"""`sdsbench external`: import W&B run folders or peft method_comparison results; reports show them apart."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("external")
@click.argument("tool", type=click.Choice(["wandb", "peft"]))
@click.argument("sources", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("results/external"),
    show_default=True,
    help="Where records go.",
)
def command(tool: str, sources: tuple[Path, ...], output: Path) -> None:
    """Import results of another tool. SOURCE is, for wandb, run folders or a folder of them; for peft, JSON files of
    its method_comparison or a folder of them."""
    from sdsbench.core.errors import Unavailable
    from sdsbench.results.importers import external, peft, wandb

    for source in sources:
        if not source.exists():
            raise Unavailable(f"{source}: no such file or folder")
        if tool == "wandb":
            records = [wandb.read(folder) for folder in wandb.run_folders(source)]
        else:
            records = [peft.read(path) for path in (sorted(source.glob("*.json")) if source.is_dir() else [source])]
        if not records:
            raise Unavailable(f"{source}: holds nothing that {tool} writes")
        for record in records:
            print(external.write(output, record))
