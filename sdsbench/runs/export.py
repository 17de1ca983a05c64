"""A finished run's trained tensors put back into its model: as peft's folder, as a plain model, or in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from sdsbench.core.run_folder import read_record
from sdsbench.methods import base as methods
from sdsbench.methods.attach import attach
from sdsbench.methods.base import Layers, Method
from sdsbench.methods.export import export_merged, export_peft, load_adapter, merge_drift
from sdsbench.methods.named_tensors import named_tensors, put_tensors
from sdsbench.models.load import LoadedModel, load
from sdsbench.runs.configuration.compose import from_tree
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.origin import PLUGIN
from sdsbench.tasks import base as tasks

TASK_TYPES = {"decoder": "CAUSAL_LM", "encoder": "SEQ_CLS", "vision": None}


def recorded_config(run: Path) -> RunConfig:
    """The configuration of a finished run, placed where a run without overrides would be, with the run's plugins.

    Raises DamagedFile where the folder's record cannot be read.
    """
    provenance = read_record(run / "record.json").provenance
    plugins = [part.removeprefix(PLUGIN) for part in (provenance.code if provenance else {}) if part.startswith(PLUGIN)]
    return from_tree({**yaml.safe_load((run / "config.yaml").read_text()), "plugins": plugins})


def trained_model(config: RunConfig, run: Path) -> tuple[LoadedModel, Method, Layers, dict[str, Any]]:
    """The run's model in fp32 as it was trained, its method and adapted layers, and the trained tensors of the base."""
    loaded = load(config.model, torch.float32, tasks.build(config.task).num_labels)
    method = methods.build(config.method)
    base = named_tensors(loaded.model)
    layers = attach(loaded.model, method, config.seeds.init)
    others = load_adapter(run / "adapter", layers, method)
    put_tensors(loaded.model, others)
    return loaded, method, layers, {name: tensor for name, tensor in others.items() if name in base}


def export(config: RunConfig, run: Path, folder: Path, form: str, dtype: str) -> dict[str, float]:
    """Write the adapter of a run in one of two forms; returns what merging into bfloat16 does to the update.

    Raises Refused where the method has no such form.
    """
    loaded, method, layers, heads = trained_model(config, run)
    if form == "peft":
        export_peft(folder, layers, method, str(config.model.location), TASK_TYPES[config.model.family], heads)
    else:
        export_merged(folder, method.fold(loaded.model), getattr(torch, dtype))
        if loaded.tokenizer is not None:
            loaded.tokenizer.save_pretrained(folder)
    return {f"bfloat16 {name}": value for name, value in merge_drift(layers, torch.bfloat16).items()}
