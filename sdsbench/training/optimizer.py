"""One optimizer over flat buffers: fp32 master weights of all trained tensors, so that few kernels update many layers.

Every trained tensor becomes a view into its group's flat buffer, and its gradient a view into a flat gradient. Tensors
whose dtype differs from their masters' keep their own storage: their gradients are added to the flat gradient as soon
as backward has computed them, and the updated master is copied back after each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdsbench.methods.masters import as_master
from sdsbench.training.training_config import TrainConfig

MOMENTUM = 0.9


@dataclass(frozen=True)
class Group:
    """Trained tensors that share a learning rate, weight decay and update rule."""

    name: str  # adapter, head or weights, with a suffix where one of these is split, as in `head, vectors`
    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float
    rule: str  # adamw, momentum or sgd
    dtype: torch.dtype | None = None  # of masters, gradients and moments; None: fp32, or fp64 as the base


class FlatOptimizer:
    """AdamW, momentum or SGD over the flat masters of several groups."""

    def __init__(self, groups: Sequence[Group], config: TrainConfig) -> None:
        self.groups = [group for group in groups if group.parameters]
        self._apart: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # (parameter, master view, gradient view)
        self._hooks: list[Any] = []
        self.flat = [self._flatten(group) for group in self.groups]
        self.optimizers = [_make(group, flat, config) for group, flat in zip(self.groups, self.flat, strict=True)]

    def _flatten(self, group: Group) -> nn.Parameter:
        whole = torch.cat([as_master(parameter.detach().reshape(-1)) for parameter in group.parameters])
        flat = nn.Parameter(whole.to(group.dtype or whole.dtype))
        flat.grad = torch.zeros_like(flat)
        start = 0
        for parameter in group.parameters:
            span = slice(start, start + parameter.numel())
            master, gradient = flat.data[span].view_as(parameter), flat.grad[span].view_as(parameter)
            if parameter.dtype == flat.dtype:
                parameter.data, parameter.grad = master, gradient
            else:
                self._apart.append((parameter, master, gradient))
                self._hooks.append(parameter.register_post_accumulate_grad_hook(_collector(gradient)))
            start = span.stop
        return flat

    def step(self, factor: float) -> None:
        """One update at `factor` times each group's learning rate."""
        for group, optimizer in zip(self.groups, self.optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = group.lr * factor
            optimizer.step()
        self._write_parameters()

    def _write_parameters(self) -> None:
        """Copy masters into the parameters that have storage of their own."""
        with torch.no_grad():
            for parameter, master, _ in self._apart:
                parameter.copy_(master)

    def refresh_masters(self) -> None:
        """Copy tensors with their own storage into their masters, after other code has written to these tensors."""
        for parameter, master, _ in self._apart:
            master.copy_(parameter.detach())

    def zero_grad(self) -> None:
        for flat in self.flat:
            assert flat.grad is not None
            flat.grad.zero_()

    def clip(self, norm: float | None) -> float:
        """Scale the gradient of all groups down to `norm` if it is larger; return its norm before that."""
        norms = [torch.linalg.vector_norm(flat.grad).float() for flat in self.flat if flat.grad is not None]
        total = float(torch.linalg.vector_norm(torch.stack(norms)))
        if norm is not None:
            self.scale_down(norm, total)
        return total

    def scale_down(self, norm: float, total: float) -> None:
        """Multiply the gradient by norm / total if that is below 1."""
        for flat in self.flat if total > norm else ():
            assert flat.grad is not None
            flat.grad.mul_(norm / total)

    def clear_state(self, head: bool = False) -> None:
        """Reset moments and step counts of the adapter's groups; with `head`, those of all groups."""
        for group, optimizer in zip(self.groups, self.optimizers, strict=True):
            if head or group.name.startswith("adapter"):
                optimizer.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Masters and optimizer state by name, for a checkpoint."""
        found = {}
        for number, (flat, optimizer) in enumerate(zip(self.flat, self.optimizers, strict=True)):
            found[f"master.{number}"] = flat.data
            for key, value in optimizer.state.get(flat, {}).items():
                if value is not None:
                    found[f"state.{number}.{key}"] = value
        return found

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        for number, (flat, optimizer) in enumerate(zip(self.flat, self.optimizers, strict=True)):
            flat.data.copy_(tensors[f"master.{number}"])
            prefix = f"state.{number}."
            state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if state:
                optimizer.state[flat] = {key: value.to(flat.device) for key, value in state.items()}
        self._write_parameters()


def _collector(gradient: Tensor) -> Any:
    def collect(parameter: nn.Parameter) -> None:
        gradient.add_(parameter.grad)  # type: ignore[arg-type]
        parameter.grad = None

    return collect


def _make(group: Group, flat: nn.Parameter, config: TrainConfig) -> torch.optim.Optimizer:
    if group.rule == "adamw":
        first, second = config.betas
        # With 16-bit moments, torch's unfused loop rounds after every operation, as in code that trains in 16 bits.
        kind = {"fused": True} if group.dtype is None else {"foreach": False, "fused": False}
        return torch.optim.AdamW([flat], lr=group.lr, betas=(first, second), weight_decay=group.weight_decay, **kind)
    momentum = {"momentum": MOMENTUM, "sgd": 0.0}[group.rule]
    return torch.optim.SGD([flat], lr=group.lr, momentum=momentum, weight_decay=group.weight_decay)
