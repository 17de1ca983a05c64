"""Generated questions in the templates of LLM-Adapters' eight benchmarks; none of them is a row of those benchmarks.

A sample row of `boolq_rows`:

    instruction  Please answer the following question with true or false, question: is the old cat of Anna alive?
                 <blank line>
                 Answer format: true/false
    input
    output       the correct answer is true
    answer       true

Options have a fixed order and one word of the question determines the answer, so that the smallest models can learn the
task in minutes. The split of a question is a function of its text, so splits share no question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from sdsbench.synthetic.word_problems_splits import generator, one_of, split_of

QUALITIES = ("small", "large", "new", "old", "fine", "plain", "cheap", "good", "clean", "light", "heavy", "nice")
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Karen", "Leo")
PLACES = ("shop", "school", "park", "garden", "market", "house", "street", "farm", "beach", "town")

ALIVE = ("cat", "dog", "horse", "sheep")
NOT_ALIVE = ("hammer", "shirt", "stone", "bottle")
KINDS = ("animal", "fruit", "tool", "vehicle")
THINGS = (("cat", "dog", "horse"), ("apple", "pear", "lemon"), ("hammer", "saw", "drill"), ("car", "bus", "train"))
NEEDS = ("warmer", "cooler")
REMEDIES = ("Close the window.", "Open the window.")
FEELINGS = ("happy", "upset", "tired")
EVENTS = (("won the race", "got a present"), ("lost the keys", "broke a cup"), ("ran all day", "worked all night"))
ACTIVITIES = ("cooks", "swims", "paints", "reads")
ENDINGS = ("stirs the soup.", "gets out of the water.", "cleans the brush.", "closes the book.")
SIZES = ("large", "small")  # "too large" refers to the inner object, "too small" to the outer one
INNER = ("ball", "lamp", "book", "vase")
OUTER = ("case", "bag", "drawer", "basket")

Row = dict[str, str]
Question = tuple[str, Sequence[str], int]
"""(instruction without its last line, labels, index of the correct label)."""
Draw = Callable[[np.random.Generator], Question]


def _rows(draw: Draw, split: str, count: int, seed: int = 0) -> list[Row]:
    rng = generator(split, seed)
    rows: list[Row] = []
    while len(rows) < count:
        text, labels, right = draw(rng)
        if split_of(text) == split:
            instruction = f"{text}Answer format: {'/'.join(labels)}"
            answer = labels[right]
            rows.append(
                {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}
            )
    return rows


def _listed(word: str, options: Sequence[str], between: str = " ") -> tuple[str, list[str]]:
    """The options as text (`Answer1: cat Answer2: dog`) and their labels (answer1, answer2)."""
    text = between.join(f"{word}{number}: {option}" for number, option in enumerate(options, 1))
    return text, [f"{word.lower()}{number}" for number in range(1, len(options) + 1)]


def _boolq(rng: np.random.Generator) -> Question:
    right = int(rng.integers(2))  # 0: true
    thing = one_of(rng, (ALIVE, NOT_ALIVE)[right])
    question = f"is the {one_of(rng, QUALITIES)} {thing} of {one_of(rng, NAMES)} alive?"
    head = "Please answer the following question with true or false, question"
    return f"{head}: {question}\n\n", ("true", "false"), right


def _piqa(rng: np.random.Generator) -> Question:
    right = int(rng.integers(2))
    options, labels = _listed("Solution", REMEDIES, "\n\n")
    question = f"How does {one_of(rng, NAMES)} make the {one_of(rng, QUALITIES)} {one_of(rng, PLACES)} {NEEDS[right]}?"
    return f"Please choose the correct solution to the question: {question}\n\n{options}\n\n", labels, right


def _social_i_qa(rng: np.random.Generator) -> Question:
    right = int(rng.integers(3))
    options, labels = _listed("Answer", FEELINGS)
    name, event = one_of(rng, NAMES), one_of(rng, EVENTS[right])
    question = (
        f"{name} {event} at the {one_of(rng, QUALITIES)} {one_of(rng, PLACES)}. How would {name} feel afterwards?"
    )
    return f"Please choose the correct answer to the question: {question}\n\n{options}\n\n", labels, right


def _hellaswag(rng: np.random.Generator) -> Question:
    right = int(rng.integers(4))
    options, labels = _listed("Ending", ENDINGS)
    name = one_of(rng, NAMES)
    context = (
        f"Daily life: {name} {ACTIVITIES[right]} near the {one_of(rng, QUALITIES)} {one_of(rng, PLACES)}. Then {name}"
    )
    head = "Please choose the correct ending to complete the given sentence"
    return f"{head}: {context}\n\n{options}\n\n", labels, right


def _winogrande(rng: np.random.Generator) -> Question:
    right = int(rng.integers(2))
    inner, outer = one_of(rng, INNER), one_of(rng, OUTER)
    options, labels = _listed("Option", (inner, outer))
    sentence = f"{one_of(rng, NAMES)} could not put the {inner} into the {outer} because the _ was too {SIZES[right]}."
    head = "Please choose the correct answer to fill in the blank to complete the given sentence"
    return f"{head}: {sentence}\n\n{options} ", labels, right


def _science(rng: np.random.Generator) -> Question:
    right = int(rng.integers(4))
    options, labels = _listed("Answer", KINDS)
    owner = f"{one_of(rng, NAMES)} saw in the {one_of(rng, PLACES)}"
    question = f"What is the {one_of(rng, QUALITIES)} {one_of(rng, THINGS[right])} that {owner}?"
    return f"Please choose the correct answer to the question: {question}\n\n{options}\n\n", labels, right


boolq_rows = partial(_rows, _boolq)
piqa_rows = partial(_rows, _piqa)
social_i_qa_rows = partial(_rows, _social_i_qa)
hellaswag_rows = partial(_rows, _hellaswag)
winogrande_rows = partial(_rows, _winogrande)
arc_easy_rows = partial(_rows, _science)


def arc_challenge_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    """Rows of the generator of `arc_easy_rows` from other random numbers."""
    return _rows(_science, split, count, seed + 1_000_000)


def openbookqa_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    """Rows of the generator of `arc_easy_rows` from other random numbers."""
    return _rows(_science, split, count, seed + 2_000_000)


def mixture_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    """Rows of all six generators in equal shares and random order, a training mixture as CommonSense170K is."""
    draws = (_boolq, _piqa, _social_i_qa, _hellaswag, _winogrande, _science)
    share = -(-count // len(draws))
    rows = [row for draw in draws for row in _rows(draw, split, share, seed)]
    order = generator(split, seed).permutation(len(rows))[:count]
    return [rows[position] for position in order]
