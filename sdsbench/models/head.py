"""A classifier's new head: values from a seed of its own, all of it trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

STD = 0.02  # what BERT, RoBERTa and ViT draw new layers with


def head_of(model: Any) -> nn.Module:
    """The module that maps features to labels (`classifier` in BERT, RoBERTa, ViT and DINOv2).

    Raises AttributeError for a model without one.
    """
    return model.classifier


def initialise_head(model: Any, seed: int) -> None:
    """Draw the head's matrices from a normal of std 0.02 and set its biases to zero; no global generator is used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head_of(model).parameters():
            if parameter.ndim > 1:
                drawn = torch.empty(parameter.shape).normal_(0.0, STD, generator=generator)
                parameter.copy_(drawn)
            else:
                parameter.zero_()


def unfreeze_head(model: Any) -> list[nn.Parameter]:
    """Let the head train; its parameters."""
    parameters = list(head_of(model).parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters
