"""LoRA+ (Hayou et al., arXiv 2402.12354, section 4): LoRA whose B learns `ratio` times faster than A.

As in the authors' code (loraplus, lora_plus.py), every trained vector (biases and norms of a trained head) has B's
learning rate; a head's matrices have A's.
"""

from __future__ import annotations

from pydantic import Field

from sdsbench.core.section import PositiveNumber
from sdsbench.methods.base import LowRankConfig, register
from sdsbench.methods.lora import LoRA


class LoRAPlusConfig(LowRankConfig):
    name: str = "lora_plus"
    ratio: PositiveNumber = Field(16.0, description="learning rate of B and of trained vectors divided by that of A")


@register("lora_plus", LoRAPlusConfig)
class LoRAPlus(LoRA):
    config: LoRAPlusConfig
    title = "LoRA+"
    arxiv = "2402.12354"

    def learning_rate_factor(self, name: str, ndim: int) -> float:
        return self.config.ratio if ndim <= 1 or name.rpartition(".")[2] == "B" else 1.0
