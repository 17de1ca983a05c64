"""LoRA+ (Hayou et al., arXiv 2402.12354, section 4): LoRA whose B learns `ratio` times faster than A.

The optimizer's step of B is stretched by the ratio after the step. For AdamW (decoupled weight decay included) and
plain SGD that is the same as a learning rate for B of ratio times the run's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sdsbench.core.section import PositiveNumber
from sdsbench.methods.base import Layers, LowRankConfig, Optimizer, register
from sdsbench.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import Tensor


class LoRAPlusConfig(LowRankConfig):
    name: str = "lora_plus"
    ratio: PositiveNumber = Field(16.0, description="learning rate of B over that of A")


@register("lora_plus", LoRAPlusConfig)
class LoRAPlus(LoRA):
    config: LoRAPlusConfig
    title = "LoRA+"
    arxiv = "2402.12354"

    def __init__(self, config: LoRAPlusConfig) -> None:
        super().__init__(config)
        self._before: dict[str, Tensor] = {}

    def before_step(self, layers: Layers, step: int) -> None:
        self._before = {name: layer.B.detach().clone() for name, layer in layers.items()}

    def after_step(self, layers: Layers, step: int, total_steps: int, optimizer: Optimizer) -> dict[str, float]:
        for name, layer in layers.items():
            before_mr = self._before[name]
            layer.B.detach().copy_(before_mr.lerp_(layer.B.detach(), self.config.ratio))
        self._before = {}
        return {}
