"""What a method is: a few verbs, called by a run in this order.

    attach (attach.py) -> prepare -> [forward, backward, before_step, optimizer, after_step] * T -> delta / export

Letters on tensors: m = output size, n = input size, r = rank, k = width of a branch, t = tokens.
W0_mn is the frozen base weight, G_mn = dL/dW, y_tm = x_tn W^T, A_rn, B_mr, R_rr.

Most methods are low-rank: their update is a sum of products, dW_mn = s * sum_i up_i_mk down_i_kn, and they only say
which products (`branches`). The layer (layer.py) knows how to apply, differentiate, merge and export any such sum, and
stays ignorant of the method.

A method is one file here that registers itself:

    @dataclass
    class LoRAConfig(LowRankConfig): ...

    @register("lora", LoRAConfig)
    class LoRA(Method): ...

and one file conf/method/lora.yaml. Nothing else is edited.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from sdsbench.core.errors import Problem
from sdsbench.core.lazy import torch
from sdsbench.methods.masters import as_master, master_dtype

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module

    from sdsbench.methods.layer import AdaptedLinear

Layers = Mapping[str, "AdaptedLinear"]
Branch = tuple["Tensor", "Tensor"]  # (up_mk, down_kn)
RowScale = tuple["Tensor", "Tensor"]  # (magnitude_m, which may train; norm_m, a constant above 0)


@dataclass
class MethodConfig:
    """Keys that every method has."""

    name: str
    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Last parts of the names of the adapted nn.Linear layers, or the one word `all-linear`."""

    def problems(self) -> Iterator[Problem]:
        if not self.targets:
            yield Problem("method.targets", self.targets, "a list of layer names, or [all-linear]")


@dataclass
class LowRankConfig(MethodConfig):
    """Keys of every method that adds a low-rank update."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.rank < 1:
            yield Problem("method.rank", self.rank, "a whole number from 1 to the smaller side of every adapted layer")
        if not self.alpha > 0:
            yield Problem("method.alpha", self.alpha, "a number above 0")
        if not 0 <= self.dropout < 1:
            yield Problem("method.dropout", self.dropout, "a number from 0 to below 1")


class Optimizer(Protocol):
    """What a method may ask of the optimizer."""

    def clear_state(self) -> None:
        """Forget the moments and step counts of the adapter's parameters."""


class DataContext(Protocol):
    """What a method may ask of the run before training starts."""

    generator: torch.Generator

    @property
    def train_rows(self) -> int: ...
    @property
    def total_steps(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...

    def summed_gradients(self, layers: Layers, rows: int) -> dict[str, Tensor]:
        """Sum of dL/dW over `rows` random training rows: per layer m x n, fp32, in main memory."""


class Method:
    """Base of all methods. A subclass overrides the verbs in which it differs."""

    name: ClassVar[str]
    relative_time: ClassVar[float] = 1.0
    """Time of a training step over that of plain LoRA, for estimates before any run is finished. Counted operations do
    not say it: full fine-tuning has 1.5 times LoRA's and takes three times as long."""
    update_rule: str = "configured"
    """`configured`: train.optimizer updates the parameters; `sgd`: the method already made the direction."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def wraps_layers(self) -> bool:
        """Whether target layers are replaced by AdaptedLinear (full fine-tuning leaves them alone)."""
        return True

    def unfreeze(self, model: Module, targets: Mapping[str, Linear]) -> None:
        """Choose what trains in a model whose layers stay as they are (only if wraps_layers() is false)."""
        raise NotImplementedError

    def state_bytes(self, m: int, n: int) -> int:
        """Bytes on an m x n layer beyond base weight, factors and their moments; refused early if they cannot fit."""
        return 0

    state_advice: str = ""
    """What to do where state_bytes does not fit."""

    def scale(self) -> float:
        """The factor s in front of the update."""
        return 1.0

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        """Register this method's fp32 parameters and buffers on one layer (also on the meta device)."""
        raise NotImplementedError

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        """The products whose sum, times s, is the update; gradients flow into parameters only."""
        raise NotImplementedError

    def skip_warmup(self) -> None:
        """Be as for most of training, where the products change early on: memory is counted of such a step."""

    def forward(self, layer: AdaptedLinear, x_tn: Tensor) -> Tensor:
        """Output y_tm of an adapted layer. Default: base plus the branches."""
        return layer.low_rank_forward(x_tn, self.branches(layer), self.scale())

    def prepare(self, layers: Layers, context: DataContext) -> dict[str, float]:
        """Initialise from data, once, before the first step (not when resuming); returns facts for the record."""
        return {}

    def before_step(self, layers: Layers, step: int) -> None:
        """Change gradients in place after backward, before clipping; step counts optimizer steps from 1."""

    def after_step(self, layers: Layers, step: int, total_steps: int, optimizer: Optimizer) -> dict[str, float]:
        """React to a finished optimizer step; returns facts for metrics.jsonl (empty: nothing happened)."""
        return {}

    def delta(self, layer: AdaptedLinear) -> Tensor:
        """The dense update dW_mn in fp32, relative to the weight that the layer holds.

        Differentiable in the layer's parameters (probes take its Jacobian); for the value alone hold torch.no_grad().
        """
        total = torch.zeros(layer.weight.shape, dtype=master_dtype(layer.weight.dtype), device=layer.weight.device)
        for up_mk, down_kn in self.branches(layer):
            total = torch.addmm(total, as_master(up_mk), as_master(down_kn), alpha=self.scale())
        return total

    def merged_weight(self, layer: AdaptedLinear) -> Tensor:
        """The dense weight that gives the same outputs without the method, m x n in fp32."""
        return as_master(layer.weight.detach()) + self.delta(layer)

    def restore(self, layer: AdaptedLinear, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved tensors of one layer, in place (parameters may be views into a flat buffer)."""
        for name, tensor in tensors.items():
            getattr(layer, name).detach().copy_(tensor)

    def untouched_branches(self, layer: AdaptedLinear) -> list[Branch]:
        """The products that give the update relative to the model's own W0 (differs where the layer's weight does)."""
        return self.branches(layer)

    peft_options: ClassVar[Mapping[str, Any]] = {}
    """Keys that the export adds to adapter_config.json."""

    def peft_tensors(self, layer: AdaptedLinear) -> dict[str, Tensor]:
        """The layer as a standard LoRA for the untouched base: all branches as one pair of factors."""
        ups, downs = zip(*self.untouched_branches(layer), strict=True)
        return {"lora_A.weight": torch.cat(downs, 0).detach(), "lora_B.weight": torch.cat(ups, 1).detach()}

    def state(self) -> dict[str, Any]:
        """What the method remembers between steps beside tensors on layers (JSON values)."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


MethodType = TypeVar("MethodType", bound=type[Method])
_REGISTRY: dict[str, tuple[type[Method], type[MethodConfig]]] = {}


def register(name: str, config: type[MethodConfig]) -> Callable[[MethodType], MethodType]:
    """Class decorator: make a method known under `method.name=name`."""

    def add(method: MethodType) -> MethodType:
        method.name = name
        _REGISTRY[name] = (method, config)
        return method

    return add


def lookup(name: str) -> tuple[type[Method], type[MethodConfig]]:
    """The method class and configuration class registered as `name`; imports sdsbench.methods.<name> on demand.

    Raises KeyError if there is none.
    """
    if name not in _REGISTRY:
        try:
            importlib.import_module(f"sdsbench.methods.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"sdsbench.methods.{name}":
                raise
            raise KeyError(name) from None
    return _REGISTRY[name]


def build(config: MethodConfig) -> Method:
    """The method that a configuration describes."""
    return lookup(config.name)[0](config)
