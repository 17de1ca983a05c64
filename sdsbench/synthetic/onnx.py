"""Converting a DINOv2 backbone in an ONNX file to a model folder, position embeddings resampled for 224 x 224."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdsbench.core.errors import Unavailable
from sdsbench.models.architecture import shipped

if TYPE_CHECKING:
    from torch import Tensor

ROOT = "backbone."  # prefix of the backbone's tensor names; other parts (a decoder) are ignored
PRETRAINED_SIZE = 518  # image size in pixels: the file has position embeddings for 37 x 37 patches
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def backbone(path: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (fp32) and preprocessor_config.json of the backbone into the folder.

    Raises Unavailable if the package onnx is not installed or the file lacks a weight of the architecture.
    """
    import torch
    from transformers import Dinov2Config, Dinov2Model

    found = _backbone_tensors(path)
    settings = shipped("dinov2_small")
    with torch.random.fork_rng(devices=[]):
        large = Dinov2Model(Dinov2Config(**{**settings, "image_size": PRETRAINED_SIZE}))
        small = Dinov2Model(Dinov2Config(**settings))
    found["embeddings.mask_token"] = torch.zeros_like(large.embeddings.mask_token)  # used only in masked pretraining
    missing = large.state_dict().keys() ^ found.keys()
    if missing:
        raise Unavailable(f"{path.name}: accepted: a DINOv2 backbone as {RENAMED}; not matched: {sorted(missing)}")
    large.load_state_dict(found)
    size = settings["image_size"]
    with torch.no_grad():
        tokens = torch.empty(1, 1 + (size // settings["patch_size"]) ** 2, settings["hidden_size"])
        found["embeddings.position_embeddings"] = large.embeddings.interpolate_pos_encoding(tokens, size, size)
    small.load_state_dict(found)
    small.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))


def _backbone_tensors(path: Path) -> dict[str, Tensor]:
    """transformers' name -> tensor. Biases and norms have names in the file; matrices are found by their MatMul."""
    import torch

    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise Unavailable(f"{path.name} is an ONNX file; to read it: pip install onnx") from None
    graph: Any = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(stored[name]).copy())

    found = {name.removeprefix(ROOT): tensor(name) for name in stored if name.startswith(ROOT)}
    for node in graph.node:
        product = re.fullmatch(r"/backbone/(encoder/layer\.\d+/.+)/MatMul", node.name)
        if product and node.input[1] in stored:
            found[product[1].replace("/", ".") + ".weight"] = tensor(node.input[1]).t().contiguous()
    positions = [tensor(name) for name in stored if name.startswith(("onnx::Concat", "onnx::Reshape"))]
    found["embeddings.position_embeddings"] = torch.cat(positions, dim=1)
    for old, new in RENAMED.items():
        found = {name.replace(old, new): value for name, value in found.items()}
    return found
