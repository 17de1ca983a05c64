"""Full fine-tuning: the weights themselves train.

`scope=all` trains every weight of the model; `scope=targets` only the weights of the target modules, as the SDS-LoRA
runs do (their biases stay frozen).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdsbench.core.errors import Problem
from sdsbench.methods.base import Method, MethodConfig, register

if TYPE_CHECKING:
    from torch.nn import Linear, Module

SCOPES = ("all", "targets")


@dataclass
class FullFineTuningConfig(MethodConfig):
    name: str = "full_ft"
    scope: str = "all"

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.scope not in SCOPES:
            yield Problem("method.scope", self.scope, " or ".join(SCOPES))


@register("full_ft", FullFineTuningConfig)
class FullFineTuning(Method):
    config: FullFineTuningConfig
    relative_time = 3.1  # published for another benchmark

    def wraps_layers(self) -> bool:
        return False

    def unfreeze(self, model: Module, targets: Mapping[str, Linear]) -> None:
        if self.config.scope == "all":
            model.requires_grad_(True)
            return
        for linear in targets.values():
            linear.weight.requires_grad_(True)
