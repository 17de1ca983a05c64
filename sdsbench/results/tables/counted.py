"""Cell values that follow from the architecture alone: trainable parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdsbench.methods.base import lookup
from sdsbench.methods.targets import ALL_LINEAR, matches
from sdsbench.models.architecture import linear_layers, shipped
from sdsbench.results.tables.published import parameter_counts

LENGTH = 256  # tokens of the forward pass in LoRA-SB's Table 7


def count(measure: str, where: Mapping[str, Any]) -> float | None:
    """The counted value of a measure for the model, method and rank in `where`; None if it cannot be counted."""
    counter = _COUNTERS.get(measure)
    key = (where.get("model", ""), where.get("method", ""), where.get("rank"))
    return counter(*key) if counter and key in parameter_counts() else None


def _parameters(model: str, method: str, rank: int | None) -> float:
    return parameter_counts()[model, method, rank]


def _multiply_adds(model: str, method: str, rank: int | None) -> float:
    """Multiply-adds of one forward pass of LENGTH tokens: all linear layers with the output layer, without attention.

    An unmerged adapter adds its factors: A and B at this rank (as LoRA's), and R of methods that train it between them.
    """
    layers = linear_layers(shipped(model), "decoder")
    weights = sum(m * n for name, (m, n) in layers.items() if matches(name, [ALL_LINEAR]) or name == "lm_head")
    if rank is not None:
        counts = parameter_counts()
        base_rank = next(r for (m, name, r) in counts if m == model and name == "lora" and r)
        weights += counts[model, "lora", base_rank] * rank // base_rank
        weights += counts[model, method, rank] if lookup(method)[0].trains_between_fixed_factors else 0
    return float(LENGTH * weights)


_COUNTERS: dict[str, Callable[[str, str, int | None], float]] = {
    "parameters.adapter": _parameters,
    "macs": _multiply_adds,
    "flops": lambda model, method, rank: 2 * _multiply_adds(model, method, rank),
}
