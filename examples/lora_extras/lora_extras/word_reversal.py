"""Word reversal: a small text task whose rows are generated. A sample row:

    {"text": "river stone lamp", "reversed": "lamp stone river"}

The only scorer, `exact`, compares the words of the answer's first line with the reversed ones, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.generators import register_generator
from sdsbench.tasks.base import Evaluation, Generation, Row, Task, TextExample, TextTaskConfig, register

WORDS = ("river", "stone", "lamp", "cloud", "paper", "green", "seven", "night", "garden", "window")
SPLITS = {"train": 0, "validation": 1, "test": 2}

catalogue.add(DataSet(name="word_reversal", columns=("text", "reversed"), folder="word_reversal", only_generated=True))
register_generator("word_reversal", f"{__name__}:rows")


def rows(split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` rows of a split, of two to four words each. Splits may share rows, since the task only tests copying."""
    rng = np.random.default_rng([seed, SPLITS[split]])
    made = []
    for _ in range(count):
        words = rng.choice(WORDS, size=rng.integers(2, 5)).tolist()
        made.append({"text": " ".join(words), "reversed": " ".join(reversed(words))})
    return made


class WordReversalConfig(TextTaskConfig):
    pass


@register("word_reversal", WordReversalConfig)
class WordReversal(Task):
    kind = "text"

    def training_example(self, row: Row) -> TextExample:
        return TextExample(prompt(row), " " + row["reversed"])

    def evaluations(self) -> Sequence[Evaluation]:
        return [
            Generation(
                name="word_reversal",
                version=1,
                dataset="word_reversal",
                split="test",
                prompt=prompt,
                target=lambda row: row["reversed"],
                scorers={"exact": exact},
                headline="exact",
                row_of=lambda target: {"reversed": target},
                max_new_tokens=self.config.max_new_tokens,
                stop=("\n",),
                beams=self.config.beams,
            )
        ]


def prompt(row: Row) -> str:
    return f"Reverse: {row['text']}\nAnswer:"


def exact(row: Row, text: str) -> bool:
    """Whether the first line of the answer holds the words in reversed order."""
    lines = text.strip().splitlines()
    return bool(lines) and lines[0].split() == row["reversed"].split()
