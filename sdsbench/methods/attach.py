"""Attach a method to a model, and merge it back into plain weights."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from sdsbench.core.errors import ConfigError, Problem, TrainingFailed
from sdsbench.methods.global_random import seed_of, seeded
from sdsbench.methods.layer import AdaptedLinear
from sdsbench.methods.linear_algebra import batch_length
from sdsbench.methods.targets import matches, unmatched

if TYPE_CHECKING:
    from sdsbench.methods.base import Layers, Method


def target_layers(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """The nn.Linear modules that `targets` names, by their dotted names, in the model's order.

    Raises ConfigError if a target names no layer.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    problems = list(unmatched(list(linear), targets))
    if problems:
        raise ConfigError(problems)
    return {name: module for name, module in linear.items() if matches(name, targets)}


def layer_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one layer's initial values; depends on the seed and the layer's name, not on its order."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def attach(model: nn.Module, method: Method, seed: int) -> dict[str, AdaptedLinear]:
    """Freeze the model, attach the method, and return the adapted layers by name (empty if it wraps no layers).

    Raises ConfigError if targets match nothing, nothing trains or the rank exceeds a layer, TrainingFailed if the
    method's own state cannot fit in memory.
    """
    targets = target_layers(model, method.config.targets)
    model.requires_grad_(False)
    device = next(iter(targets.values())).weight.device
    with seeded(seed_of("initial values", seed), device):  # for methods that draw from global generators
        layers = _wrap(model, method, targets, seed) if method.wraps_layers() else {}
        if not method.wraps_layers():
            method.unfreeze(model, targets, seed)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError([Problem("method.name", method.name, "a method that trains something with these settings")])
    return layers


def _wrap(model: nn.Module, method: Method, targets: dict[str, nn.Linear], seed: int) -> dict[str, AdaptedLinear]:
    _check_rank(method, targets)
    _check_memory(method, targets)
    layers = {}
    for name, linear in targets.items():
        layer = AdaptedLinear(linear, method, name)
        layer.train(linear.training)
        method.create(layer, layer_generator(seed, name))
        _replace(model, name, layer)
        layers[name] = layer
    return layers


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLinear]:
    """The adapted layers of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}


def merge_(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Replace every adapted layer by a plain nn.Linear with merged weights, in place; returns the model.

    The merged weights have type `dtype`, or that of the base if not given. fp32 keeps the outputs of the adapted model;
    bf16 rounds away a part of the update (export.merge_drift measures it). `dtype` also converts the rest of the model.
    """
    for name, layer in adapted_layers(model).items():
        with torch.no_grad():
            merged_mn = layer.method.merged_weight(layer).to(dtype or layer.weight.dtype)
        _replace(model, name, _plain(layer, merged_mn))
    return model if dtype is None else model.to(dtype)


def merged(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A plain copy of an adapted model; the model itself stays as it is.

    Adapted weights are not copied before they are merged, so the peak is one extra model.
    """
    layers = adapted_layers(model)
    memo = {id(layer): layer for layer in layers.values()}
    return merge_(copy.deepcopy(model, memo), dtype)


def _plain(layer: AdaptedLinear, weight_mn: torch.Tensor) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(weight_mn, requires_grad=False)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias.detach().to(weight_mn.dtype), requires_grad=False)
    return linear.train(layer.training)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _check_rank(method: Method, targets: dict[str, nn.Linear]) -> None:
    rank = method.config.rank
    for name, linear in targets.items():
        smaller = min(linear.in_features, linear.out_features)
        if rank > smaller:
            accepted = f"at most {smaller}, the smaller side of {name}"
            raise ConfigError([Problem("method.rank", rank, accepted, "Lower the rank or narrow method.targets.")])


def _check_memory(method: Method, targets: dict[str, nn.Linear]) -> None:
    """Raise TrainingFailed before allocating method state that cannot fit in memory (LoRA-Pro's dense moments)."""
    needed = sum(method.state_bytes(linear.out_features, linear.in_features) for linear in targets.values())
    device = next(iter(targets.values())).weight.device
    if not needed or device.type == "meta":
        return
    free = _free_bytes(device)
    if needed > free:
        raise TrainingFailed(
            f"method={method.name} keeps {needed / 1e9:.1f} GB of state beside the adapters and {device} has "
            f"{free / 1e9:.1f} GB free: {method.state_advice}",
            kind="oom",
        )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)


def group_by_shape(layers: Layers) -> list[list[AdaptedLinear]]:
    """Layers in groups of equal (m, n) and device, so that their small linear algebra runs as one batch.

    On the CPU a group is cut into batches that fit the cache.
    """
    groups: dict[tuple[tuple[int, int], torch.device], list[AdaptedLinear]] = {}
    for layer in layers.values():
        groups.setdefault((layer.shape, layer.weight.device), []).append(layer)
    batches = []
    for (shape, device), group in groups.items():
        length = batch_length(len(group), sum(shape) * group[0].method.config.rank, device)
        batches += [group[start : start + length] for start in range(0, len(group), length)]
    return batches
