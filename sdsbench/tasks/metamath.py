"""MetaMath: one training on MetaMathQA (a sample row is in math_training.py), evaluated on GSM8K and on MATH.

The scorers are those of gsm8k.py and math.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sdsbench.core.errors import Problem
from sdsbench.tasks import gsm8k, math
from sdsbench.tasks.base import Evaluation, Row, Task, TextExample, register
from sdsbench.tasks.math_training import training_example


@dataclass
class MetaMathConfig(math.MathConfig):
    max_new_tokens: int = 256  # GSM8K's
    math_max_new_tokens: int = 512

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.math_max_new_tokens < 1:
            yield Problem("task.math_max_new_tokens", self.math_max_new_tokens, "a whole number from 1")


@register("metamath", MetaMathConfig)
class MetaMath(Task):
    kind = "text"

    def training_example(self, row: Row) -> TextExample:
        return training_example(row, self.config)

    def evaluations(self) -> Sequence[Evaluation]:
        for_math = replace(self.config, max_new_tokens=self.config.math_max_new_tokens)
        return [gsm8k.evaluation(self.config), math.evaluation(for_math)]
