"""MetaMath: one training on MetaMathQA (a sample row is in math_training.py), evaluated on GSM8K and on MATH.

The scorers are those of gsm8k.py and math.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sdsbench.core.section import Count
from sdsbench.tasks import gsm8k, math
from sdsbench.tasks.base import Evaluation, register
from sdsbench.tasks.math_training import MathTask


class MetaMathConfig(math.MathConfig):
    max_new_tokens: Count = Field(256, description="largest length of a generated GSM8K answer, in tokens")
    math_max_new_tokens: Count = Field(512, description="largest length of a generated MATH answer, in tokens")


@register("metamath", MetaMathConfig)
class MetaMath(MathTask):
    def evaluations(self) -> Sequence[Evaluation]:
        for_math = self.config.model_copy(update={"max_new_tokens": self.config.math_max_new_tokens})
        return [gsm8k.evaluation(self.config), math.evaluation(for_math)]
