"""`sdsbench external`: import W&B run folders or peft method_comparison results; reports show them apart."""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared import options


@click.command("external")
@click.argument("tool", type=click.Choice(["wandb", "peft"]))
@click.argument("sources", type=options.PATH, nargs=-1, required=True, metavar="SOURCE...")
@options.folder("--output", default="results/external", help="Folder for the imported records.")
def command(tool: str, sources: tuple[Path, ...], output: Path) -> None:
    """Import results of another tool. SOURCE: for wandb, W&B run folders or a folder of them; for peft, JSON files of
    its method_comparison or a folder of them."""
    from sdsbench.core.errors import DamagedFile, Unavailable
    from sdsbench.results.importers import external, peft_results, wandb

    faults = []
    for source in sources:
        if not source.exists():
            raise Unavailable(f"{source}: no such file or folder")
        found = wandb.run_folders(source) if tool == "wandb" else peft_results.files(source)
        if not found:
            raise Unavailable(f"{source}: holds nothing that {tool} writes")
        for path in found:
            try:
                with external.importing(tool, path):
                    record = wandb.read(path) if tool == "wandb" else peft_results.read(path)
                print(external.write(output, record))
            except (DamagedFile, Unavailable) as error:  # report it and continue with the others
                faults.append(str(error))
    if faults:
        raise DamagedFile("\n".join(faults))
