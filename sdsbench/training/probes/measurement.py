"""The quantities that a probe measures on one layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdsbench.training.probes.spectra import (
    Spectrum,
    condition_number,
    cosine,
    effective_rank,
    intruder_dimensions,
    principal_angles,
    singular_values,
    spectra,
    stable_rank,
)

KEPT = 16
"""How many singular values of a dense matrix are stored: twice the usual rank."""


@dataclass(frozen=True)
class LayerView:
    """Weights and gradients of one layer before and after one optimizer step."""

    gradient_mn: Tensor  # G = dL/dW over the probe rows, before the step
    equivalent_mn: Tensor  # J d, the method's first-order change for G without the factor -eta (change.py)
    actual_mn: Tensor  # change of W by the optimizer step
    update_mn: Tensor  # dW, relative to the model's own W0, before the step
    base_mn: Tensor  # W0
    factor_gradients: Mapping[str, Tensor]  # raw J^T G by parameter
    factors: Mapping[str, Tensor]  # A and B where the method has them, trained or not
    bases: tuple[Tensor, Tensor] | None  # factors (up_mr, down_rn) onto whose spans G is projected; None: dense weight


def measure(view: LayerView) -> dict[str, Any]:
    """Measurements of one layer by name: numbers, and lists of singular values; undefined numbers (0 / 0) are None."""
    whole = spectra(torch.stack([m.double() for m in _dense(view)]))
    gradient_k, update_k = whole.values[0], whole.values[1]
    equivalent_k, actual_k = singular_values(torch.stack([view.equivalent_mn, view.actual_mn]))
    alignment = cosine(view.equivalent_mn, view.gradient_mn)
    row: dict[str, Any] = {
        "alignment": alignment,
        "residual": math.sqrt(max(0.0, 1 - alignment**2)),
        "gain": _ratio(view.equivalent_mn, view.gradient_mn),
        "actual_alignment": -cosine(view.actual_mn, view.gradient_mn),
        "actual_to_equivalent": -cosine(view.actual_mn, view.equivalent_mn),
        "gradient_norm": float(view.gradient_mn.norm()),
        "actual_norm": float(view.actual_mn.norm()),
        "update_norm": float(view.update_mn.norm()),
        "update_norm_relative": _ratio(view.update_mn, view.base_mn),
        "intruders": intruder_dimensions(whole.left[2], whole.left[3]),
    }
    named = (("gradient", gradient_k), ("equivalent", equivalent_k), ("actual", actual_k), ("update", update_k))
    for name, values_k in named:
        row[f"{name}_effective_rank"] = effective_rank(values_k)
        row[f"{name}_stable_rank"] = stable_rank(values_k)
        row[f"{name}_values"] = values_k[:KEPT].tolist()
    row |= _of_factors(view)
    row |= _of_bases(view, whole)
    row["singular_gains"] = _gains(view, whole)
    return {key: _plain(value) for key, value in row.items()}


def _dense(view: LayerView) -> list[Tensor]:
    return [view.gradient_mn, view.update_mn, view.base_mn, view.base_mn.double() + view.update_mn.double()]


def _of_factors(view: LayerView) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, gradient in view.factor_gradients.items():
        if gradient.ndim == 2:
            values_k = torch.linalg.svdvals(gradient.double())
            row[f"gradient_{name}_stable_rank"] = stable_rank(values_k)
            row[f"gradient_{name}_effective_rank"] = effective_rank(values_k)
    for name, factor in view.factors.items():
        values_k = torch.linalg.svdvals(factor.double())
        row[f"condition_{name}"] = condition_number(values_k)
        row[f"{name}_values"] = values_k.tolist()
    return row


def _of_bases(view: LayerView, whole: Spectrum) -> dict[str, Any]:
    """Overlap of G's leading singular subspace with the bases: mean squared cosine (0 to 1), and the largest angle."""
    if view.bases is None:
        return {}
    row: dict[str, Any] = {}
    up_mr, down_rn = view.bases
    for side, basis_dr, vectors_Ldk in (("up", up_mr, whole.left), ("down", down_rn.mT, whole.right)):
        angles = principal_angles(basis_dr, vectors_Ldk[0][:, : basis_dr.shape[1]])
        row[f"{side}_overlap"] = float(angles.cos().square().mean())
        row[f"{side}_largest_angle"] = float(angles.max())
    return row


def _gains(view: LayerView, whole: Spectrum) -> list[float]:
    """How strongly G passes along the singular directions u_i, v_i of dW: |(u_i^T E, E v_i)| / |(u_i^T G, G v_i)|.

    Isotropic methods have equal gains; LoRA's grow with the singular values of its factors.
    """
    rank = next((factor.shape[0] for name, factor in view.factors.items() if name == "A"), KEPT)
    values_k = whole.values[1]
    count = min(rank, int((values_k > 1e-6 * values_k[0]).sum())) if values_k[0] > 0 else 0
    u_mk, v_nk = whole.left[1][:, :count], whole.right[1][:, :count]

    def strength(matrix_mn: Tensor) -> Tensor:
        wide_mn = matrix_mn.double()
        return ((u_mk.mT @ wide_mn).square().sum(1) + (wide_mn @ v_nk).square().sum(0)).sqrt()

    return (strength(view.equivalent_mn) / strength(view.gradient_mn)).tolist()


def _ratio(left: Tensor, right: Tensor) -> float:
    return float(left.norm() / right.norm()) if float(right.norm()) > 0 else float("nan")


def _plain(value: Any) -> Any:
    """Numbers rounded to five significant digits; None for those that are not finite."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, int):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None
