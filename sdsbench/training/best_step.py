"""The step with the lowest loss on training rows held out: what trains is kept as it was there and put back at the end.

As the trainer of DoRA's and LoRA-XS's commonsense recipes does it (load_best_model_at_end).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sdsbench.methods.named_tensors import put_tensors

if TYPE_CHECKING:
    from sdsbench.training.state import TrainState


@dataclass(frozen=True)
class BestStep:
    """What a run had trained after the best step so far."""

    step: int
    loss: float
    tensors: Mapping[str, Tensor]  # by name in the model
    method: Mapping[str, Any]  # Method.state

    def facts(self) -> dict[str, Any]:
        """All but the tensors, as JSON values."""
        return {"step": self.step, "loss": self.loss, "method": dict(self.method)}


def keep_if_best(model: nn.Module, state: TrainState, loss: float) -> None:
    """Remember what is trained if the loss is below that of every earlier look; of equal ones the first counts."""
    if state.best is None or loss < state.best.loss:
        tensors = {name: tensor.detach().clone() for name, tensor in _trained(model, state).items()}
        state.best = BestStep(state.step, loss, tensors, state.method.state())


def put_back(model: nn.Module, state: TrainState) -> None:
    """Make model and method what they were after the best step; the state of further steps stays that of the last."""
    assert state.best is not None
    state.method.load_state(state.best.method)
    put_tensors(model, state.best.tensors)


def _trained(model: nn.Module, state: TrainState) -> dict[str, Tensor]:
    """By name all that makes the model's outputs and may change in training: also a method's bases, a head."""
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, layer in state.layers.items():
        found |= {f"{name}.{key}": tensor for key, tensor in layer.method_tensors().items()}
    return found | state.frozen_tensors()
