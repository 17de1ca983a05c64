"""`sdsbench export RUN FOLDER`: a finished run's adapter for peft, or merged into a plain model folder."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import yaml

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.runs.configuration.compose import compose_run, from_tree
from sdsbench.runs.configuration.identity import PLACING
from sdsbench.runs.configuration.schema import RunConfig

DTYPES = ("float32", "bfloat16")
TASK_TYPES = {"decoder": "CAUSAL_LM", "encoder": "SEQ_CLS", "vision": None}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sdsbench export", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder (results/runs/<run id>)")
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--form", choices=("peft", "merged"), default="peft")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="of merged weights; bfloat16 rounds the update"
    )
    given = parser.parse_args(arguments)
    if not (given.run / "adapter").is_dir():
        accepted = "a run folder with adapter/ (finished, and not full fine-tuning)"
        raise ConfigError([Problem("run", str(given.run), accepted)])
    if given.folder.exists() and any(given.folder.iterdir()):
        raise ConfigError([Problem("folder", str(given.folder), "an empty or new folder")])
    config = recorded_config(given.run)
    for name, value in export(config, given.run, given.folder, given.form, given.dtype).items():
        print(f"{name:<22} {value:.4g}")
    return 0


def recorded_config(run: Path) -> RunConfig:
    """The configuration of a finished run, placed where a run without overrides would be."""
    tree = yaml.safe_load((run / "config.yaml").read_text())
    defaults = dataclasses.asdict(compose_run([]))
    for key in PLACING:
        section, _, last = key.rpartition(".")
        (tree[section] if section else tree)[last] = (defaults[section] if section else defaults)[last]
    return from_tree(tree)


def export(config: RunConfig, run: Path, folder: Path, form: str, dtype: str) -> dict[str, float]:
    """Write the adapter of a run in one of two forms; returns what merging into bfloat16 does to the update."""
    import torch

    from sdsbench.methods import base as methods
    from sdsbench.methods.attach import attach
    from sdsbench.methods.export import export_merged, export_peft, load_adapter, merge_drift
    from sdsbench.methods.named_tensors import named_tensors, put_tensors
    from sdsbench.models.load import load
    from sdsbench.tasks import base as tasks

    loaded = load(config.model, torch.float32, getattr(tasks.build(config.task), "num_labels", None))
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
