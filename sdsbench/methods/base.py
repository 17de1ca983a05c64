"""What a method is: a few verbs, called by a run in this order.

    attach (attach.py) -> prepare -> [forward, backward, before_step, optimizer, after_step] * T -> delta / export

Letters on tensors: m = output size, n = input size, r = rank, k = width of a branch, t = tokens.
W0_mn is the frozen base weight, G_mn = dL/dW, y_tm = x_tn W^T, A_rn, B_mr, R_rr.

Most methods are low-rank: their update is a sum of products, dW_mn = s * sum_i up_i_mk down_i_kn, and the method only
returns those products (`branches`). The layer (layer.py) applies and differentiates any such sum without knowing which
method it belongs to.

A method is one file here that registers itself:

    class LoRAConfig(LowRankConfig): ...

    @register("lora", LoRAConfig)
    class LoRA(Method): ...

and one file conf/method/lora.yaml. Nothing else is edited. To add your own method, put the same two files into your own
package (docs/plugins.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import Field, model_validator

from sdsbench.core.lazy import torch
from sdsbench.core.registry import ClassRegistry
from sdsbench.core.section import Accepts, Count, Section, Share
from sdsbench.methods.masters import as_master, master_dtype

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module

    from sdsbench.methods.layer import AdaptedLinear

Layers = Mapping[str, "AdaptedLinear"]
Branch = tuple["Tensor", "Tensor"]  # (up_mk, down_kn)
RowScale = tuple["Tensor", "Tensor"]  # (magnitude_m, which may train; norm_m, a constant above 0)


Targets = Annotated[list[str], Field(min_length=1), Accepts("a list of layer names, or [all-linear]")]


ALPHA = r"(\d+(?:\.\d+)?)?(r|sqrt\(r\))"
Alpha = Annotated[
    float, Field(gt=0), Accepts("a number above 0, or a multiple of the rank or its root: r, 2r, 4sqrt(r)")
]


SVDIterations = Annotated[int, Field(ge=0, le=1000)]


class MethodConfig(Section):
    """Keys that every method has."""

    name: str = Field(description="registered name of the method")
    targets: Targets = Field(["all-linear"], description="endings of the names of the adapted layers, or [all-linear]")


class LowRankConfig(MethodConfig):
    """Keys of every method that adds a low-rank update."""

    rank: Count = Field(8, description="r, at most the smaller side of every adapted layer")
    alpha: Alpha = Field(16.0, description="determines, with the rank, the factor s of the update")
    dropout: Share = Field(0.0, description="dropout probability on the input of the update in training")

    @model_validator(mode="before")
    @classmethod
    def _multiple_of_the_rank(cls, values: Any) -> Any:
        """Replace `alpha: 2r` by twice the configured rank. `4sqrt(r)` gives methods with s = alpha / r the factor s of
        rsLoRA."""
        if isinstance(values, dict) and (multiple := re.fullmatch(ALPHA, str(values.get("alpha")))):
            rank = values.get("rank", cls.model_fields["rank"].default)
            known = isinstance(rank, int) and rank > 0  # else the rank's own problem is reported
            power = 1.0 if multiple[2] == "r" else 0.5
            return values | {"alpha": float(multiple[1] or 1) * (rank**power if known else 1)}
        return values


class Optimizer(Protocol):
    """What a method may ask of the optimizer."""

    def clear_state(self, head: bool = False) -> None:
        """Forget the moments and step counts of the adapter's parameters, and with `head` those of a head too."""


class DataContext(Protocol):
    """What a method may ask of the run before training starts."""

    generator: torch.Generator

    @property
    def train_rows(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def warmup_ratio(self) -> float: ...
    @property
    def epochs(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...

    def summed_gradients(
        self, layers: Layers, rows: int, batch: int = 1, dropout: bool = False, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Sum of dL/dW_mn over `rows` random training rows, by layer name, in main memory.

        A batch of k rows adds the gradient of its mean target loss, divided by k. With `dropout`, the base model's own
        dropout is active. `dtype` is the dtype of the sum and of each addend; None: fp32.
        """

    def train_at_constant_rate(self, steps: int, after_step: Callable[[int, Optimizer], None]) -> None:
        """Take `steps` optimizer steps on the run's first batches at its peak learning rate; they do not count as steps
        of the run.

        `after_step` is called with each step's number, from 1. The optimizer's state is cleared at the end.
        """


class Method:
    """Base of all methods. A subclass overrides the verbs in which it differs."""

    name: ClassVar[str]
    title: ClassVar[str] = ""
    """The method's name in tables and figures; if the class sets none, `name` is used."""
    form_titles: ClassVar[Mapping[str, str]] = {}
    """Titles of variants, by the override that selects them (`method.variant=NAME`). A value that begins with a comma
    is appended to the method's title, any other replaces it, and an empty one adds nothing. A key that ends with `=`
    matches every value, which replaces `{}` in the title."""
    arxiv: ClassVar[str] = ""
    """arXiv number of the method's paper; tables and figures list methods in the order of these numbers."""
    relative_time: ClassVar[float] = 1.0
    """Time of a training step divided by plain LoRA's, for estimates before any run has finished. Operation counts do
    not predict it: full fine-tuning needs 1.5 times LoRA's operations and takes three times as long."""
    update_rule: str = "configured"
    """`configured`: train.optimizer updates the parameters. `sgd`: before_step writes the final direction into the
    gradients, and a plain step applies it."""
    trained_dtype: str | None = None
    """dtype in which the optimizer keeps the method's trained tensors and their moments; None: fp32."""

    def __init__(self, config: Any) -> None:
        self.config = config

    trains_base: ClassVar[bool] = False
    """Whether weights of the base model itself train (full fine-tuning)."""

    trains_between_fixed_factors: ClassVar[bool] = False
    """Whether the update is B R A with B and A constant: only R, rank x rank, trains."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Top-level modules of other packages whose code affects the method's numbers; records hold their versions."""

    exact_gradient: ClassVar[bool] = True
    """Whether training follows the gradient of the loss; false where a part of the forward pass is held constant."""

    def wraps_layers(self) -> bool:
        """Whether target layers are replaced by AdaptedLinear. Only such runs can share a base and train in a group.

        If false, `unfreeze` changes the model instead: full fine-tuning unfreezes weights; another method may insert
        its own layers.
        """
        return True

    def unfreeze(self, model: Module, targets: Mapping[str, Linear], seed: int) -> None:
        """Choose or create what trains (only if wraps_layers() is false); the rest of the model is frozen.

        Initial values depend on `seed` alone. The caller seeds the global generators before this call and restores them
        after it.
        """
        raise NotImplementedError

    def fold(self, model: Module) -> Module:
        """Merge what `unfreeze` added into plain weights, in place; returns the plain model.

        Raises Refused if plain weights cannot give the same outputs.
        """
        return model

    def peft_adapter(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """(content of adapter_config.json, tensors by name on disk) in the peft library's format, or None.

        Called only if wraps_layers() is false; for adapted layers `peft_tensors` is called instead.
        """
        return None

    def state_bytes(self, m: int, n: int) -> int:
        """Bytes of method state per m x n layer, without base weight, factors and their moments. Runs for which it
        cannot fit are refused before training."""
        return 0

    state_advice: str = ""
    """Advice in the error message if state_bytes does not fit in memory."""

    def scale(self) -> float:
        """The factor s in front of the update."""
        return 1.0

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        """Register this method's fp32 parameters and buffers on one layer (also on the meta device)."""
        raise NotImplementedError

    def largest_update_rank(self) -> int:
        """The largest rank of the update between two refreshes of a layer's factors."""
        return self.config.rank

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        """The products whose sum, times s, is the update; gradients flow into parameters only."""
        raise NotImplementedError

    def skip_warmup(self) -> None:
        """Switch to the main phase for methods whose branches change after a warm-up, so that memory is estimated for a
        typical step."""

    def forward(self, layer: AdaptedLinear, x_tn: Tensor) -> Tensor:
        """Output y_tm of an adapted layer. Default: base plus the branches."""
        return layer.low_rank_forward(x_tn, self.branches(layer), self.scale())

    def prepare(self, layers: Layers, context: DataContext) -> dict[str, float]:
        """Initialise from data, once, before the first step (not when resuming); returns facts for the record."""
        return {}

    def before_step(self, layers: Layers, step: int, lr: float) -> None:
        """Change gradients in place after backward; step counts optimizer steps from 1.

        `lr` is the learning rate of this step before `learning_rate_factor`. Methods that update one factor after the
        other need it to compute the first factor's new value.

        train.clip decides whether gradients are clipped before this call (`raw`) or after it (`adjusted`).
        """

    @classmethod
    def adjusts_gradients(cls) -> bool:
        """Whether the method overrides before_step; if not, train.clip has no effect."""
        return cls.before_step is not Method.before_step

    def learning_rate_factor(self, name: str, ndim: int) -> float:
        """Factor on the learning rate of one trained tensor, given its dotted name in the model and its number of
        dimensions.

        Also called for the tensors of a trained head.
        """
        return 1.0

    def after_step(self, layers: Layers, step: int, total_steps: int, optimizer: Optimizer) -> dict[str, float]:
        """Called after each optimizer step; returns values for metrics.jsonl (empty: nothing to log)."""
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
        own = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
        for name, tensor in tensors.items():
            own[name].detach().copy_(tensor)

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
        """Method state for checkpoints that is not held in layer tensors (JSON values)."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


METHODS: ClassRegistry[Method, MethodConfig] = ClassRegistry("method", "sdsbench.methods")
"""A name is looked for in sdsbench/methods/<name>.py, then in installed plugins."""
register, lookup, build = METHODS.decorator, METHODS.lookup, METHODS.build
