"""AdamW with 8-bit moments that updates each weight inside the backward pass: full fine-tuning of large models.

The other optimizers keep fp32 master weights; this one does not, and is selected by train.optimizer=adamw8bit. It needs
4 bytes for each value (a bf16 weight and two 8-bit moments) where fp32 masters, gradients and moments need 18:

* the moments are 8-bit codes with one fp32 scale for 256 values (Dettmers et al. 2021, arXiv 2110.02861), by torchao;
* the update is computed in fp32 and rounded to bf16 up or down with the probability that keeps its mean, so that steps
  far below bf16's resolution still add up;
* each gradient is applied and freed as soon as backward has computed it, so passes cannot be accumulated.

Clipping needs the norm of all gradients before the first update: one more forward and backward pass measures it.
Tensors that are too small for torchao to quantise (norms, biases) have fp32 masters and moments.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdsbench.core.errors import Unavailable
from sdsbench.methods.masters import as_master
from sdsbench.training.optimizer import Group
from sdsbench.training.training_config import TrainConfig

BLOCK = 256  # values that share a scale
SMALLEST = 4096  # torchao quantises moments from this size on
CHUNK = 2**23  # values updated at once: bounds the fp32 temporaries of a large embedding's update
UPDATE_BYTES = 41  # temporary bytes for each updated value if torch.compile is not available

Backward = Callable[[float], float]
"""backward(scale) computes the gradients of scale * loss and returns the unscaled loss."""


def require_torchao() -> None:
    """Raises Unavailable if torchao is not installed.

    It is an optional dependency because transformers imports it in every run where it is installed, which takes 2 s.
    """
    if importlib.util.find_spec("torchao") is None:
        raise Unavailable(
            "train.optimizer='adamw8bit': it needs torchao, which is not installed. "
            "Run: pip install 'sdsbench[full-ft]'"
        )


def held_bytes(values: int) -> int:
    """Bytes of optimizer state for a trained tensor of `values` values.

    Two 8-bit moments with an fp32 scale for each block; for a small tensor, an fp32 master and two fp32 moments.
    """
    return 12 * values if _is_small(values) else 2 * (values + 4 * values // BLOCK)


def _is_small(values: int) -> bool:
    return values < SMALLEST or values % BLOCK != 0


@dataclass(frozen=True)
class _Trained:
    """One trained tensor, the flat pieces that its optimizer updates one at a time, and that optimizer."""

    number: int
    parameter: nn.Parameter
    lr: float
    pieces: Sequence[nn.Parameter]  # views of the weight, or its one fp32 master
    optimizer: torch.optim.Optimizer

    @property
    def has_master(self) -> bool:
        return self.pieces[0].data_ptr() != self.parameter.data_ptr()

    def update(self, lr: float) -> None:
        """Apply one AdamW update from `parameter.grad` at learning rate `lr`; the caller frees the gradient."""
        gradient = self.parameter.grad
        assert gradient is not None
        torch.as_tensor(self.optimizer.param_groups[0]["lr"]).fill_(lr)
        start = 0
        for piece in self.pieces:  # the optimizer skips pieces whose gradient is None
            piece.grad = gradient.reshape(-1)[start : start + piece.numel()].to(piece.dtype)
            self.optimizer.step()
            piece.grad = None
            start += piece.numel()
        self.write_back()

    def write_back(self) -> None:
        """Copy the fp32 master values, if there are any, into the weight."""
        if self.has_master:
            self.parameter.detach().copy_(self.pieces[0].view_as(self.parameter))


class InBackwardAdamW:
    """AdamW with 8-bit moments over several groups; `seed` decides the rounding, together with the step."""

    def __init__(self, groups: Sequence[Group], config: TrainConfig, seed: int) -> None:
        self.seed = seed
        members = [(group, parameter) for group in groups for parameter in group.parameters]
        self.trained = [_trained(number, *member, config) for number, member in enumerate(members)]
        self._arrived: Callable[[_Trained], None] | None = None  # called for each tensor when its gradient is complete
        self._squares = torch.zeros(())
        for trained in self.trained:
            trained.parameter.register_post_accumulate_grad_hook(self._hook(trained))

    def step(self, backward: Backward, step: int, factor: float, clip_norm: float | None) -> tuple[float, float]:
        """Make update number `step` at `factor` times each group's learning rate; return (loss, gradient norm).

        With `clip_norm`, calls `backward` twice and leaves the weights unchanged if loss or norm is not finite.
        """

        def update(trained: _Trained) -> None:
            with self._rounding(step, trained):
                trained.update(trained.lr * factor)

        if clip_norm is None:
            return self._pass(backward, 1.0, update)
        loss, norm = self._pass(backward, 1.0, lambda trained: None)
        if math.isfinite(loss) and math.isfinite(norm):
            self._pass(backward, clip_norm / norm if norm > clip_norm else 1.0, update)
        return loss, norm

    def _pass(self, backward: Backward, scale: float, arrived: Callable[[_Trained], None]) -> tuple[float, float]:
        """(loss, norm of the gradient of scale * loss); calls `arrived` with each tensor whose gradient is complete."""
        self._squares, self._arrived = torch.zeros((), device=self.trained[0].parameter.device), arrived
        try:
            loss = backward(scale)
        finally:
            self._arrived = None
        return loss, float(self._squares.sqrt())

    def _hook(self, trained: _Trained) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            if self._arrived is None:
                raise RuntimeError("a backward pass outside InBackwardAdamW.step: its gradients would pile up")
            self._squares += torch.linalg.vector_norm(parameter.grad, dtype=torch.float32).square()
            self._arrived(trained)
            parameter.grad = None

        return hook

    @contextmanager
    def _rounding(self, step: int, trained: _Trained) -> Iterator[None]:
        """Seed torch's global generators, from which torchao draws, by (seed, step, tensor); restore them on exit."""
        name = f"rounding:{self.seed}:{step}:{trained.number}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        device = trained.parameter.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), _eagerly(device):
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.manual_seed(seed)
            yield

    def refresh_masters(self) -> None:
        """Copy the current weights into the fp32 masters, after other code has written to the weights."""
        for trained in self.trained:
            if trained.has_master:
                trained.pieces[0].detach().copy_(trained.parameter.detach().reshape(-1))

    def clear_state(self, head: bool = False) -> None:
        """Reset moments and step counts."""
        for trained in self.trained:
            trained.optimizer.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Weights (or masters) and moments by name, for a checkpoint."""
        found = {}
        for trained in self.trained:
            whole = trained.pieces[0] if trained.has_master else trained.parameter
            found[f"weight.{trained.number}"] = whole.detach()
            for place, piece in enumerate(trained.pieces):
                for key, value in trained.optimizer.state.get(piece, {}).items():
                    name = f"state.{trained.number}.{place}.{key}"
                    quantised = hasattr(value, "codes")
                    found |= {f"{name}.{part}": getattr(value, part) for part in _PARTS} if quantised else {name: value}
        return found

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        for trained in self.trained:
            whole = trained.pieces[0] if trained.has_master else trained.parameter
            whole.detach().copy_(tensors[f"weight.{trained.number}"])
            trained.write_back()
            for place, piece in enumerate(trained.pieces):
                prefix = f"state.{trained.number}.{place}."
                saved = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
                if saved:
                    trained.optimizer.state[piece] = _restored(saved, piece)


_PARTS = ("codes", "scale")
_SIGNED = {"exp_avg": True, "exp_avg_sq": False}


def _restored(saved: dict[str, Tensor], piece: nn.Parameter) -> dict[str, Any]:
    """Saved state of one piece, converted to the tensor types that its optimizer uses."""
    if "exp_avg" in saved:
        return {key: value.to(piece.device) for key, value in saved.items()}
    from torchao.optim.subclass_8bit import OptimState8bit

    state: dict[str, Any] = {"step": saved["step"]}
    for key, signed in _SIGNED.items():
        state[key] = OptimState8bit.zeros(piece.shape, signed, BLOCK, piece.device, dtype=piece.dtype)
        for part in _PARTS:
            getattr(state[key], part).copy_(saved[f"{key}.{part}"])
    return state


def _trained(number: int, group: Group, parameter: nn.Parameter, config: TrainConfig) -> _Trained:
    first, second = config.betas
    options: dict[str, Any] = {"betas": (first, second), "weight_decay": group.weight_decay}
    values = parameter.detach().view(-1)
    if _is_small(parameter.numel()):
        pieces = [nn.Parameter(as_master(values).clone())]
        small = torch.optim.AdamW(pieces, lr=torch.tensor(group.lr), fused=True, **options)
        return _Trained(number, parameter, group.lr, pieces, small)
    from torchao.optim import AdamW8bit

    blocks, count = values.numel() // BLOCK, math.ceil(values.numel() / CHUNK)
    pieces = [nn.Parameter(piece) for piece in values.split(math.ceil(blocks / count) * BLOCK)]
    large = AdamW8bit(pieces, lr=group.lr, bf16_stochastic_round=True, block_size=BLOCK, **options)
    return _Trained(number, parameter, group.lr, pieces, large)


def _eagerly(device: torch.device) -> AbstractContextManager[Any]:
    """Disable the torch.compile that torchao applies to its update where Triton is missing, as on a CPU."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
