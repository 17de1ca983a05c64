"""Names and shapes from configuration files against real modules on the meta device, and the papers' counts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from sdsbench.core.errors import Unavailable
from sdsbench.methods.attach import attach, target_layers
from sdsbench.methods.base import build, lookup
from sdsbench.models.architecture import FOLDER, linear_layers, shipped

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
COUNTS = Path(__file__).parents[2] / "results" / "paper" / "parameter_counts.csv"
TARGETS = {"roberta_large": ["query", "value", "attention.output.dense", "output.dense"]}


def on_meta(config: dict, model_class=None) -> nn.Module:
    hf_config = AutoConfig.for_model(**config)
    if model_class is None:
        encoder = AutoModelForSequenceClassification if "bert" in config["model_type"] else AutoModelForCausalLM
        model_class = AutoModelForImageClassification if "image_size" in config else encoder
    with torch.device("meta"):
        return model_class.from_config(hf_config)


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_shipped_architectures_are_the_real_ones(name: str) -> None:
    real = target_layers(on_meta(shipped(name)), ["all-linear"])
    assert linear_layers(shipped(name)) == {key: tuple(linear.weight.shape) for key, linear in real.items()}


@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov2_layers(swiglu: bool) -> None:
    config = {
        "model_type": "dinov2",
        "hidden_size": 96,
        "mlp_ratio": 4,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "use_swiglu_ffn": swiglu,
        "image_size": 28,
    }
    real = target_layers(on_meta(config), ["all-linear"])
    assert linear_layers(config) == {key: tuple(linear.weight.shape) for key, linear in real.items()}


def test_unknown_architectures_are_named() -> None:
    with pytest.raises(Unavailable, match="mamba"):
        linear_layers({"model_type": "mamba"})
    with pytest.raises(Unavailable, match="mistral_7b"):
        shipped("mistral")


def _rows() -> list[dict[str, str]]:
    return list(csv.DictReader(COUNTS.open())) if COUNTS.exists() else []


@pytest.mark.parametrize("name", sorted({row["model"] for row in _rows()}))
def test_trainable_counts_are_the_papers(name: str) -> None:
    config = shipped(name)
    for row in (row for row in _rows() if row["model"] == name):
        full = row["method"] == "full_ft"
        model = on_meta(config, AutoModel if name == "roberta_large" else AutoModelForCausalLM)
        keys = {} if full else {"rank": int(row["rank"])}
        targets = ["all-linear"] if full else TARGETS.get(name, ["all-linear"])
        method = build(lookup(row["method"])[1](name=row["method"], targets=targets, **keys))
        attach(model, method, 0)
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert trainable == int(row["trainable_parameters"]), row


def test_counts_are_at_hand() -> None:
    assert len(_rows()) == 52
