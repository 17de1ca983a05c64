"""The pretraining text of the micro model: no question of a task's splits, and no sum in the prompt of fine-tuning."""

from __future__ import annotations

import itertools
import re

import numpy as np

from scripts.pretrain_micro_text import HEADER, HELD_OUT, RESPONSE, documents, sample_equation, story
from sdsbench.synthetic.word_problems import TEMPLATES, rows
from sdsbench.synthetic.word_problems_math import math_rows
from sdsbench.tasks.prompts import alpaca

DOCUMENTS = list(itertools.islice(documents(np.random.default_rng(0)), 6000))


def test_pretraining_prompt_equals_the_prompt_of_the_tasks() -> None:
    assert alpaca("Count.") == f"{HEADER}Count.{RESPONSE}"


def test_text_holds_no_question_of_a_task() -> None:
    parts = set(re.split(r"\n|(?:Story|Exercise|Q): | A: ", "\n".join(DOCUMENTS)))
    for split in ("train", "validation", "test"):
        found = sorted(parts & _questions(split))
        assert found == []
    assert len(parts & _questions("pretrain")) > 10  # the check does find questions that are in the text


def _questions(split: str) -> set[str]:
    return {row["question"] for row in rows(split, 3000)} | {row["problem"] for row in math_rows(split, 1500)}


def test_instructions_are_never_answered_with_sums() -> None:
    answers = [text.split(RESPONSE, 1)[1] for text in DOCUMENTS if HEADER in text]
    assert len(answers) > 400
    assert not any(re.search(r"\d [-+*/] \d", answer) or "answer is:" in answer for answer in answers)


def test_stories_use_no_held_out_template() -> None:
    assert set(HELD_OUT) < {template.name for template in TEMPLATES}
    rng = np.random.default_rng(1)
    bodies = [re.escape(t.story.rsplit(". ", 1)[0]) for t in TEMPLATES if t.name in HELD_OUT]
    patterns = [re.compile(re.sub(r"\\{\w+\\}", r"\\w+", body)) for body in bodies]
    assert any(pattern.search(row["question"]) for row in rows("train", 50) for pattern in patterns)
    assert not any(pattern.search(story(rng)) for pattern in patterns for _ in range(300))


def test_equations_are_correct_and_small() -> None:
    rng = np.random.default_rng(2)
    for _ in range(3000):
        left, sign, right, result = sample_equation(rng)
        assert {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign] == result
        assert min(left, right, result) >= 1 and max(left, right, result) <= 144
