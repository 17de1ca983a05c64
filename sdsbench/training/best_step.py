"""Keep the trained tensors of the step with the lowest loss on held-out training rows; restore them at the end.

This is `load_best_model_at_end` of transformers' Trainer, as DoRA's and LoRA-XS's commonsense recipes use it.
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
    """The trained tensors and the method's state after the best step so far."""

    step: int
    loss: float
    tensors: Mapping[str, Tensor]  # by name in the model
    method: Mapping[str, Any]  # Method.state

    def facts(self) -> dict[str, Any]:
        """All but the tensors, as JSON values."""
        return {"step": self.step, "loss": self.loss, "method": dict(self.method)}


def keep_if_best(model: nn.Module, state: TrainState, loss: float) -> None:
    """Copy the trained tensors if `loss` is below every earlier held-out loss; on a tie the earlier step stays."""
    if state.best is None or loss < state.best.loss:
        tensors = {name: tensor.detach().clone() for name, tensor in _trained(model, state).items()}
        state.best = BestStep(state.step, loss, tensors, state.method.state())


def put_back(model: nn.Module, state: TrainState) -> None:
    """Restore model and method as they were after the best step; optimizer and step count stay those of the last."""
    assert state.best is not None
    state.method.load_state(state.best.method)
    put_tensors(model, state.best.tensors)


def _trained(model: nn.Module, state: TrainState) -> dict[str, Tensor]:
    """Every tensor, by name, that affects the outputs and may change in training, including bases and a head."""
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, layer in state.layers.items():
        found |= {f"{name}.{key}": tensor for key, tensor in layer.method_tensors().items()}
    return found | state.frozen_tensors()
