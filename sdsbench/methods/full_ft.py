"""Full fine-tuning: trains the model's weights without adapters.

`scope=all` trains every weight of the model; `scope=targets` only the weights of the target modules, as the SDS-LoRA
runs do (their biases stay frozen).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sdsbench.core.section import only_where
from sdsbench.methods.base import Method, MethodConfig, Targets, register

if TYPE_CHECKING:
    from torch.nn import Linear, Module


class FullFineTuningConfig(MethodConfig):
    name: str = "full_ft"
    targets: Annotated[Targets, only_where(scope="targets")] = Field(
        ["all-linear"], description="endings of the names of the trained layers, or [all-linear]"
    )
    scope: Literal["all", "targets"] = Field(
        "all", description="train every weight, or only those of the target layers"
    )


@register("full_ft", FullFineTuningConfig)
class FullFineTuning(Method):
    config: FullFineTuningConfig
    title = "Full FT"
    trains_base = True
    relative_time = 3.1  # published for another benchmark

    def wraps_layers(self) -> bool:
        return False

    def unfreeze(self, model: Module, targets: Mapping[str, Linear], seed: int) -> None:
        if self.config.scope == "all":
            model.requires_grad_(True)
            return
        for linear in targets.values():
            linear.weight.requires_grad_(True)
