"""The shipped vit_micro model: it loads offline, is small and classifies the patterns that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTForImageClassification

import sdsbench
from scripts.pretrain_vit_micro_images import PATTERNS, SIDE, batch

FOLDER = Path(sdsbench.__file__).parent / "synthetic" / "vit_micro"


@pytest.fixture(scope="module")
def model() -> ViTForImageClassification:
    return ViTForImageClassification.from_pretrained(FOLDER, local_files_only=True).eval()


def test_model_is_small_and_every_projection_takes_rank_32(model) -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 2**20
    assert {path.suffix for path in FOLDER.iterdir()} == {".json", ".safetensors", ".md"}
    layers = [layer for layer in model.vit.modules() if isinstance(layer, torch.nn.Linear)]
    assert len(layers) == 6 * model.config.num_hidden_layers
    assert min(min(layer.weight.shape) for layer in layers) > 32


def test_model_classifies_new_images_with_the_shipped_preprocessing(model) -> None:
    facts = json.loads((FOLDER / "preprocessor_config.json").read_text())
    assert facts["size"] == {"height": SIDE, "width": SIDE} and model.config.image_size == SIDE
    assert list(model.config.id2label.values()) == list(PATTERNS)
    images, labels = batch(np.random.default_rng(77), 240)
    pixels = (np.round(images * 255) * facts["rescale_factor"] - facts["image_mean"]) / facts["image_std"]
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).logits
    assert (logits.argmax(-1).numpy() == labels).mean() > 0.8
