"""The dtype of trained parameters: fp32 for any base dtype except fp64, which keeps fp64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdsbench.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def master_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp32 for bf16, fp16 and fp32; fp64 for fp64 (the theory bench, and checks against exact values)."""
    return torch.promote_types(dtype, torch.float32)


def as_master(tensor: Tensor) -> Tensor:
    """The tensor in its master dtype; the same object if it already has that dtype."""
    return tensor.to(master_dtype(tensor.dtype))
