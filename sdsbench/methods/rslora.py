"""rsLoRA (Kalajdzievski, arXiv 2312.03732, theorem 3.2): LoRA with s = alpha / sqrt r."""

from __future__ import annotations

import math

from sdsbench.methods.base import LowRankConfig, register
from sdsbench.methods.lora import LoRA


class RsLoRAConfig(LowRankConfig):
    name: str = "rslora"


@register("rslora", RsLoRAConfig)
class RsLoRA(LoRA):
    title = "rsLoRA"
    arxiv = "2312.03732"

    def scale(self) -> float:
        return self.config.alpha / math.sqrt(self.config.rank)
