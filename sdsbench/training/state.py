"""Everything that a resumed run needs; all else is a function of the configuration and the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sdsbench.methods.base import Method
from sdsbench.methods.named_tensors import FrozenAdditions, put_tensors
from sdsbench.methods.tensor_file import ready_to_save
from sdsbench.training.best_step import BestStep
from sdsbench.training.in_backward import InBackwardAdamW
from sdsbench.training.optimizer import FlatOptimizer


@dataclass
class Counters:
    """Tokens and time that training has consumed so far."""

    tokens: int = 0  # without padding
    targets: int = 0  # tokens (or examples of a classifier) that carried loss
    positions: int = 0  # tokens including padding
    seconds: float = 0.0


@dataclass
class TrainState:
    """The resumable state after `step` optimizer steps; the optimizer's masters hold the trained tensors."""

    optimizer: FlatOptimizer | InBackwardAdamW
    method: Method
    layers: Mapping[str, Any]
    step: int = 0
    counters: Counters = field(default_factory=Counters)
    group_size: int = 1  # largest group, this run included, in which it made a step (side_by_side.py)
    micro_limit: int | None = None  # largest number of tokens in a pass, set once a larger pass ran out of memory
    frozen: FrozenAdditions | None = None  # frozen tensors of a method that adds its own layers to the model
    best: BestStep | None = None  # set if train.best_every is

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name."""
        found = {f"optimizer.{key}": value for key, value in self.optimizer.tensors().items()}
        found |= {f"buffer.{key}": value for key, value in _buffers(self.layers).items()}
        found |= {f"frozen.{key}": value for key, value in self.frozen_tensors().items()}
        found |= {f"best.{key}": value for key, value in (self.best.tensors if self.best else {}).items()}
        return ready_to_save(found)

    def frozen_tensors(self) -> dict[str, Tensor]:
        """Untrained tensors that the method added to the model outside its adapted layers, by name."""
        return self.frozen.tensors() if self.frozen else {}

    def facts(self) -> dict[str, Any]:
        """Everything else of the state, as JSON values."""
        return {
            "step": self.step,
            "counters": vars(self.counters),
            "method": self.method.state(),
            "group_size": self.group_size,
            "micro_limit": self.micro_limit,
            "best": self.best.facts() if self.best else None,
        }

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore what `tensors` and `facts` returned."""
        self.method.load_state(facts["method"])
        self.optimizer.load_tensors(_part(tensors, "optimizer."))
        for name, layer in self.layers.items():
            # The method decides what else follows from a saved start: PiSSA's residual belongs to the saved factors,
            # and another machine's SVD has given this run others.
            self.method.restore(layer, {key: tensors[f"buffer.{name}/{key}"] for key, _ in layer.named_buffers()})
        if self.frozen:
            put_tensors(self.frozen.model, _part(tensors, "frozen."))
        self.best = BestStep(**facts["best"], tensors=_part(tensors, "best.")) if facts["best"] else None
        self.step = facts["step"]
        self.counters = Counters(**facts["counters"])
        self.group_size, self.micro_limit = facts["group_size"], facts["micro_limit"]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, by name without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _buffers(layers: Mapping[str, Any]) -> dict[str, Tensor]:
    """Untrained tensors that a method keeps on its layers (bases, frozen factors), by name."""
    return {f"{name}/{key}": buffer for name, layer in layers.items() for key, buffer in layer.named_buffers()}
