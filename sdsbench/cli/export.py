"""`sdsbench export RUN FOLDER`: a finished run's adapter for peft, or merged into a plain model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdsbench.cli.shared import options

if TYPE_CHECKING:
    from sdsbench.runs.configuration.schema import RunConfig

DTYPES = ("float32", "bfloat16")
TASK_TYPES = {"decoder": "CAUSAL_LM", "encoder": "SEQ_CLS", "vision": None}


@click.command("export")
@click.argument("run", metavar="RUN")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--form", type=click.Choice(["peft", "merged"]), default="peft", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float32",
    show_default=True,
    help="Of merged weights; bfloat16 rounds the update.",
)
@options.runs
def command(run: str, folder: Path, form: str, dtype: str, runs: tuple[str, ...]) -> None:
    """Write the adapter of a finished RUN (its folder, its id or the beginning of its id) to FOLDER.

    The form peft opens with peft.PeftModel; merged is a plain model folder. What rounding to bfloat16 does to the
    update is printed.
    """
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.core.errors import ConfigError, Problem

    source = run_folder(run, runs)
    if not (source / "adapter").is_dir():
        accepted = "a run folder with adapter/ (finished, and not full fine-tuning)"
        raise ConfigError([Problem("run", str(source), accepted)])
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError([Problem("folder", str(folder), "an empty or new folder")])
    for name, value in export(recorded_config(source), source, folder, form, dtype).items():
        print(f"{name:<22} {value:.4g}")


def recorded_config(run: Path) -> RunConfig:
    """The configuration of a finished run, placed where a run without overrides would be."""
    import yaml

    from sdsbench.runs.configuration.compose import from_tree

    return from_tree(yaml.safe_load((run / "config.yaml").read_text()))


def export(config: RunConfig, run: Path, folder: Path, form: str, dtype: str) -> dict[str, float]:
    """Write the adapter of a run in one of two forms; returns what merging into bfloat16 does to the update."""
    import torch

    from sdsbench.methods import base as methods
    from sdsbench.methods.attach import attach
    from sdsbench.methods.export import export_merged, export_peft, load_adapter, merge_drift
    from sdsbench.methods.named_tensors import named_tensors, put_tensors
    from sdsbench.models.load import load
    from sdsbench.tasks import base as tasks

    loaded = load(config.model, torch.float32, tasks.build(config.task).num_labels)
    method = methods.build(config.method)
    base = named_tensors(loaded.model)
    layers = attach(loaded.model, method, config.seeds.init)
    others = load_adapter(run / "adapter", layers, method)
    put_tensors(loaded.model, others)
    if form == "peft":
        heads = {name: tensor for name, tensor in others.items() if name in base}
        export_peft(folder, layers, method, str(config.model.location), TASK_TYPES[config.model.family], heads)
    else:
        export_merged(folder, method.fold(loaded.model), getattr(torch, dtype))
        if loaded.tokenizer is not None:
            loaded.tokenizer.save_pretrained(folder)
    return {f"bfloat16 {name}": value for name, value in merge_drift(layers, torch.bfloat16).items()}
