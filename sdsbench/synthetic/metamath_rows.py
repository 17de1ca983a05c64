"""Generated training rows with MetaMathQA's columns: half word problems, half exercises (like GSM8K and MATH).

A sample row:

    {"type": "GSM_Original", "query": "Anna has 5 apples. ...", "original_question": "Anna has 5 apples. ...",
     "response": "Anna has 5 + 3 = 8 apples. ...\\n#### 8\\nThe answer is: 8"}
"""

from __future__ import annotations

from sdsbench.synthetic import word_problems
from sdsbench.synthetic.word_problems_math import rows_with_answers
from sdsbench.synthetic.word_problems_splits import generator


def rows(split: str, count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` rows of a split in an order drawn from `seed`; splits share no problem."""
    exercises = count // 2
    both = problem_rows(split, count - exercises, seed) + exercise_rows(split, exercises, seed)
    return [both[position] for position in generator(split, seed).permutation(len(both))]


def problem_rows(split: str, count: int, seed: int) -> list[dict[str, str]]:
    """The word problems in MetaMathQA's columns and with its answer ending."""
    return [
        _row(
            "GSM_Original",
            row["question"],
            word_problems.without_annotations(row["answer"]),
            row["answer"].rsplit(" ", 1)[1],
        )
        for row in word_problems.rows(split, count, seed)
    ]


def exercise_rows(split: str, count: int, seed: int) -> list[dict[str, str]]:
    """The exercises in MetaMathQA's columns and with its answer ending."""
    return [
        _row("MATH_Original", row["problem"], row["solution"], answer)
        for row, answer in rows_with_answers(split, count, seed)
    ]


def _row(kind: str, question: str, solution: str, answer: str) -> dict[str, str]:
    return {
        "type": kind,  # as in derived sets; MetaMathQA itself does not use these names
        "query": question,
        "original_question": question,
        "response": f"{solution}\nThe answer is: {answer}",
    }
