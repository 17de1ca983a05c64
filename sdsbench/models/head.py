"""A classifier's new head: initial values from a separate seed; all of its parameters train."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

STD = 0.02  # initializer_range of BERT, RoBERTa and ViT


def head_parameters(model: Any) -> dict[str, nn.Parameter]:
    """The head's parameters by name: every parameter outside the base model (`classifier.*` in BERT)."""
    base = f"{model.base_model_prefix}."
    return {name: parameter for name, parameter in model.named_parameters() if not name.startswith(base)}


def label_parameters(model: Any) -> set[str]:
    """Names of the head's parameters with one row per label: those of its output layer."""
    return {name for name, value in head_parameters(model).items() if value.shape[0] == model.config.num_labels}


def initialise_head(model: Any, seed: int) -> None:
    """Draw the head's matrices from a normal of std 0.02, set its biases to zero and the scales of its norms to one.

    No global generator is used.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in head_parameters(model).items():
            if parameter.ndim > 1:
                drawn = torch.empty(parameter.shape).normal_(0.0, STD, generator=generator)
                parameter.copy_(drawn)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def unfreeze_head(model: Any) -> list[nn.Parameter]:
    """Set requires_grad on the head's parameters and return them."""
    parameters = list(head_parameters(model).values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters
