"""Adapt a vision model to another image size by resampling its position embeddings once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sdsbench.core.errors import ConfigError, Problem


def set_image_size_(model: Any, size: int) -> None:
    """Set a vision transformer's input to size x size pixels, in place.

    The position embeddings are resampled bicubically by transformers' own function, so the outputs equal those of
    transformers with `interpolate_pos_encoding`. The model's configuration gets the new size. Raises ConfigError for a
    model without learned position embeddings, or a size that is not a multiple of the patch size.
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
