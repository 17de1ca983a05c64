"""Stack A and B of equally shaped layers (L = layers) into batches, and copy results back into the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdsbench.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear


def stacked(batch: Sequence[AdaptedLinear], name: str) -> Tensor:
    """The layers' tensors of this name, stacked along a new first dimension L."""
    return torch.stack([getattr(layer, name) for layer in batch])


def stacked_gradients(batch: Sequence[AdaptedLinear], name: str) -> Tensor:
    """The gradients of the layers' tensors of this name, stacked along a new first dimension L."""
    return torch.stack([getattr(layer, name).grad for layer in batch])


def factors_and_gradients(batch: Sequence[AdaptedLinear]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(A_Lrn, B_Lmr, gA_Lrn, gB_Lmr)"""
    return stacked(batch, "A"), stacked(batch, "B"), stacked_gradients(batch, "A"), stacked_gradients(batch, "B")


def put(batch: Sequence[AdaptedLinear], **stacks: Tensor) -> None:
    """Copy stacks into the layers' tensors of these names, in place."""
    for name, stack in stacks.items():
        for layer, tensor in zip(batch, stack, strict=True):
            getattr(layer, name).copy_(tensor)


def put_gradients(batch: Sequence[AdaptedLinear], **stacks: Tensor) -> None:
    """Copy stacks into the gradients of the layers' tensors, in place, since gradients may be views of a shared
    buffer."""
    for name, stack in stacks.items():
        for layer, tensor in zip(batch, stack, strict=True):
            getattr(layer, name).grad.copy_(tensor)
