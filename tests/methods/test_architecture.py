"""Layers from shipped configurations equal those of real models on the meta device, and counts equal the papers'."""

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
from sdsbench.core.hashing import sha256_of
from sdsbench.methods.attach import attach
from sdsbench.methods.base import build, lookup
from sdsbench.models import architecture
from sdsbench.models.architecture import FOLDER, hashable, linear_layers, shipped

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
COUNTS = Path(__file__).parents[2] / "results" / "paper" / "parameter_counts.csv"
TARGETS = {"roberta_large": ["query", "value", "attention.output.dense", "output.dense"]}


def model_on_meta(config: dict, model_class=None) -> nn.Module:
    hf_config = AutoConfig.for_model(**config)
    if model_class is None:
        encoder = AutoModelForSequenceClassification if "bert" in config["model_type"] else AutoModelForCausalLM
        model_class = AutoModelForImageClassification if "image_size" in config else encoder
    with torch.device("meta"):
        return model_class.from_config(hf_config)


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_shipped_architectures_equal_those_of_the_model(name: str) -> None:
    facts = shipped(name)
    linears = {key: m for key, m in model_on_meta(facts).named_modules() if isinstance(m, nn.Linear)}
    assert list(linear_layers(facts, "decoder").items()) == [
        (key, tuple(linear.weight.shape)) for key, linear in linears.items()
    ]


def test_layers_of_other_architectures_are_read_from_the_model_and_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path))
    facts = {"model_type": "phi3", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "vocab_size": 40, "pad_token_id": 0}  # fmt: skip
    found = linear_layers(facts, "decoder")
    assert found["model.layers.1.self_attn.qkv_proj"] == (96, 32) and found["lm_head"] == (40, 32)
    monkeypatch.setattr(architecture, "built_layers", lambda *_: pytest.fail("built again"))
    assert list(linear_layers(facts, "decoder").items()) == list(found.items())


def test_infinity_and_nan_in_a_config_json_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the time_step_limit of Mamba-2's published configurations."""
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path))
    facts = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "vocab_size": 16, "a": [0.0, float("inf")], "b": float("nan")}  # fmt: skip
    assert linear_layers(facts, "decoder")["lm_head"] == (16, 8)
    assert sha256_of(hashable(facts)) != sha256_of(hashable({**facts, "a": [0.0, 1.0]}))


def test_unknown_and_oversized_architectures_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match="no_such_type"):
        linear_layers({"model_type": "no_such_type"}, "decoder")
    with pytest.raises(Unavailable, match="num_hidden_layers=1000000000: accepted: at most"):
        linear_layers({"model_type": "llama", "num_hidden_layers": 10**9}, "decoder")
    with pytest.raises(Unavailable, match="mistral_7b"):
        shipped("mistral")


def published_counts() -> list[dict[str, str]]:
    return list(csv.DictReader(COUNTS.open())) if COUNTS.exists() else []


@pytest.mark.parametrize("name", sorted({row["model"] for row in published_counts()}))
def test_trainable_parameter_counts_equal_the_papers(name: str) -> None:
    config = shipped(name)
    for row in (row for row in published_counts() if row["model"] == name):
        full = row["method"] == "full_ft"
        model = model_on_meta(config, AutoModel if name == "roberta_large" else AutoModelForCausalLM)
        keys = {} if full else {"rank": int(row["rank"])}
        targets = ["all-linear"] if full else TARGETS.get(name, ["all-linear"])
        method = build(lookup(row["method"])[1](name=row["method"], targets=targets, **keys))
        attach(model, method, 0)
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert trainable == int(row["trainable_parameters"]), row


def test_all_published_counts_are_read() -> None:
    assert len(published_counts()) == 52
