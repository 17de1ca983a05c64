"""GSM8K: grade-school word problems (Cobbe et al. 2021). A sample row:

    {"question": "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How
                  many clips did Natalia sell altogether in April and May?",
     "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether
                in April and May.\\n#### 72"}

Zero-shot with the training prompt; several graders read one generation: see graders/gsm8k_answer.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import TEXT, ColumnCheck
from sdsbench.tasks.base import Evaluation, Generation, Row, register
from sdsbench.tasks.graders import gsm8k_answer as graders
from sdsbench.tasks.math_training import MathTask, MathTaskConfig, answered

_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?", re.ASCII)


def gold(row: Row) -> str:
    """The number after `####`, without thousands commas."""
    return row["answer"].rsplit("####", 1)[-1].strip().replace(",", "")


def _has_gold(answer: Any, row: Row) -> bool:
    return TEXT.holds(answer, row) and "####" in answer and bool(_NUMBER.fullmatch(gold(row)))


catalogue.add(
    DataSet(
        name="gsm8k",
        columns=("question", "answer"),
        checks={
            "question": TEXT,
            "answer": ColumnCheck(
                "a solution that ends in `#### 72`, a number of at most 20 digits without a unit", _has_gold
            ),
        },
        hub_id="openai/gsm8k",
        hub_config="main",
        revision="740312add88f781978c0658806c59bc2815b9866",
        folder="gsm8k",
    )
)


@register("gsm8k", MathTaskConfig)
class GSM8K(MathTask):
    def evaluations(self) -> Sequence[Evaluation]:
        return [evaluation(self.config)]


def evaluation(config: MathTaskConfig) -> Generation:
    version = 2  # version 1: `paper` compared exactly, no `metamath`
    return answered("gsm8k", version, "gsm8k", "question", gold, graders.GRADERS, "flexible", config)
