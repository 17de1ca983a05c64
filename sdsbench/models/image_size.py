"""A model of images for another image size than it was trained on: its table of positions, resampled once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sdsbench.core.errors import ConfigError, Problem


def set_image_size_(model: Any, size: int) -> None:
    """Make a vision transformer one for size x size pixels.

    The positions of the patches are resampled bicubically, by transformers' own function for other sizes, so that the
    model does with such images what transformers does with `interpolate_pos_encoding`. Its configuration says the new
    size. Raises ConfigError for a model without a table of positions, or a size that holds no whole patches.
    """
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    if not hasattr(embeddings, "interpolate_pos_encoding") or getattr(embeddings, "position_embeddings", None) is None:
        advice = f"A {model.config.model_type} model has no table of positions that could be resampled."
        raise ConfigError([Problem("model.image_size", size, "null with this model", advice)])
    patch = model.config.patch_size
    if size % patch:
        raise ConfigError([Problem("model.image_size", size, f"a multiple of {patch}, the side of a patch")])
    old_pd = embeddings.position_embeddings
    tokens_bpd = old_pd.new_empty(1, 1 + (size // patch) ** 2, old_pd.shape[-1])
    with torch.no_grad():
        new_pd = embeddings.interpolate_pos_encoding(tokens_bpd, size, size).clone()
    embeddings.position_embeddings = nn.Parameter(new_pd)
    model.config.image_size = size
    for part in (embeddings, embeddings.patch_embeddings):
        if hasattr(part, "image_size"):
            part.image_size = (size, size)
    embeddings.patch_embeddings.num_patches = (size // patch) ** 2
