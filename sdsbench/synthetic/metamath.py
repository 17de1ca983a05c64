"""Generated training rows with MetaMathQA's columns: half word problems, half exercises (like GSM8K and MATH).

A sample row:

    {"type": "GSM_Original", "query": "Anna has 5 apples. ...", "original_question": "Anna has 5 apples. ...",
     "response": "Anna has 5 + 3 = 8 apples. ...\\n#### 8\\nThe answer is: 8"}
"""

from __future__ import annotations

from sdsbench.synthetic.word_problems import metamath_rows
from sdsbench.synthetic.word_problems_math import math_metamath_rows
from sdsbench.synthetic.word_problems_splits import generator


def rows(split: str, count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` rows of a split in an order drawn from `seed`; splits share no problem."""
    exercises = count // 2
    both = metamath_rows(split, count - exercises, seed) + math_metamath_rows(split, exercises, seed)
    return [both[position] for position in generator(split, seed).permutation(len(both))]
