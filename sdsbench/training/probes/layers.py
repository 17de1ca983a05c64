"""The two kinds of probed layer: an adapted one, and a plain nn.Linear whose weight trains (full fine-tuning)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.methods.attach import target_layers
from sdsbench.methods.masters import as_master
from sdsbench.training.probes.change import change_between, first_order_change, method_direction
from sdsbench.training.probes.measurement import LayerView

if TYPE_CHECKING:
    from sdsbench.methods.base import Method
    from sdsbench.methods.layer import AdaptedLinear

Tensors = Mapping[str, Tensor]
Arrived = Callable[[str, Tensor, Tensors], None]


def probed_layers(model: nn.Module, layers: Mapping[str, AdaptedLinear], method: Method) -> Mapping[str, ProbedLayer]:
    """Probed layers by name: the adapted layers, or if there are none, the target layers whose weights train.

    Raises ConfigError if there are neither, since the probe would have nothing to measure.
    """
    if layers:
        return {name: AdapterProbe(layer) for name, layer in layers.items()}
    targets = target_layers(model, method.config.targets)
    found = {name: DenseProbe(name, linear) for name, linear in targets.items() if linear.weight.requires_grad}
    if not found:
        accepted = "null where a method neither adapts target layers nor lets their weights train"
        raise ConfigError([Problem("probe.every", method.name, accepted)])
    return found


class ProbedLayer(ABC):
    """Interface between a probe and one layer of the model."""

    @abstractmethod
    def parameters(self) -> Tensors:
        """The layer's trained tensors, by name."""

    @abstractmethod
    def listen(self, arrived: Arrived) -> list[Any]:
        """Register hooks that call `arrived` in backward once G and all factor gradients of this layer are complete.

        Returns handles, whose `remove()` unregisters the hooks.
        """

    @abstractmethod
    def view(
        self, old: Tensors, new: Tensors, gradient_mn: Tensor, raw: Tensors, moments: Tensors, step: int
    ) -> LayerView:
        """The layer's matrices before and after one step, from the snapshots `old` and `new`.

        `gradient_mn` is G and `raw` holds the factor gradients J^T G; `moments` is the training state from before the
        step. Call while the parameters hold the old values.
        """

    def training_state(self) -> dict[str, Tensor]:
        """Copies, in main memory, of what the method keeps on the layer for its steps (its own moments), by name."""
        return {}

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of the layer's trained tensors."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters().items()}

    def put(self, values: Tensors) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(values[name])


class AdapterProbe(ProbedLayer):
    """An adapted layer, measured through the functions of its method (branches, delta, before_step)."""

    def __init__(self, layer: AdaptedLinear) -> None:
        self.layer = layer

    def parameters(self) -> Tensors:
        return {name: p for name, p in self.layer.named_parameters() if p.requires_grad}

    def listen(self, arrived: Arrived) -> list[Any]:
        waiting: dict[str, Tensor] = {}
        wanted = {"", *self.parameters()}  # "" stands for G

        def take(name: str, gradient: Tensor) -> None:
            waiting[name] = gradient.detach()
            if waiting.keys() == wanted:
                arrived(self.layer.name, waiting.pop(""), dict(waiting))
                waiting.clear()

        self.layer.gradient_sink = lambda gradient_mn: take("", gradient_mn)
        hooks = [
            parameter.register_hook(lambda gradient, name=name: take(name, gradient))
            for name, parameter in self.parameters().items()
        ]
        return [*hooks, _SinkHandle(self.layer)]

    def training_state(self) -> dict[str, Tensor]:
        saved, all_tensors = self.layer.method_tensors(), self.layer.method_tensors(training_state=True)
        return {name: tensor.to("cpu", copy=True) for name, tensor in all_tensors.items() if name not in saved}

    def view(
        self, old: Tensors, new: Tensors, gradient_mn: Tensor, raw: Tensors, moments: Tensors, step: int
    ) -> LayerView:
        layer, method = self.layer, self.layer.method
        with torch.enable_grad():  # so that a product of factors, such as R A, tells that it trains
            branches = method.branches(layer)
        trained = [branch for branch in branches if any(factor.requires_grad for factor in branch)] or branches
        extra = method.untouched_branches(layer)[len(branches) :]
        update_mn = method.delta(layer)
        from_own_mn = torch.zeros_like(update_mn)  # the model's W0 minus the layer's frozen weight (PiSSA's residual)
        for up_mk, down_kn in extra:
            from_own_mn.addmm_(up_mk, down_kn, alpha=method.scale())
        known = layer.method_tensors()
        return LayerView(
            gradient_mn=gradient_mn,
            equivalent_mn=first_order_change(layer, old, method_direction(layer, raw, moments, step)),
            actual_mn=change_between(layer, old, new),
            update_mn=update_mn + from_own_mn,
            base_mn=as_master(layer.weight.detach()) - from_own_mn,
            factor_gradients=raw,
            factors={name: known[name] for name in ("A", "B") if name in known},
            bases=(trained[0][0].detach(), trained[-1][1].detach()),
        )


class DenseProbe(ProbedLayer):
    """A plain layer whose weight trains; W0 is the weight at construction."""

    def __init__(self, name: str, linear: nn.Linear) -> None:
        self.name, self.linear = name, linear
        self.start_mn = linear.weight.detach().cpu().clone()

    def parameters(self) -> Tensors:
        return {"weight": self.linear.weight}

    def listen(self, arrived: Arrived) -> list[Any]:
        return [self.linear.weight.register_hook(lambda gradient: arrived(self.name, gradient.detach().float(), {}))]

    def view(
        self, old: Tensors, new: Tensors, gradient_mn: Tensor, raw: Tensors, moments: Tensors, step: int
    ) -> LayerView:
        base_mn = self.start_mn.to(gradient_mn.device).float()
        return LayerView(
            gradient_mn=gradient_mn,
            equivalent_mn=gradient_mn,
            actual_mn=new["weight"].float() - old["weight"].float(),
            update_mn=old["weight"].float() - base_mn,
            base_mn=base_mn,
            factor_gradients={},
            factors={},
            bases=None,
        )


class _SinkHandle:
    """Removes the gradient sink of a layer; has the interface of torch's hook handles."""

    def __init__(self, layer: AdaptedLinear) -> None:
        self.layer = layer

    def remove(self) -> None:
        self.layer.gradient_sink = None
