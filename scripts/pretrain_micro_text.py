"""The generated text that the micro model is pretrained on.

The model should know the words, digits and arithmetic of the embedded tasks, and have read stories with sums, but never
in the prompt format of fine-tuning: instructions have answers without sums, and sums occur in other formats. Stories
come only from the `pretrain` split, which is disjoint from train, validation and test, and only from the templates in
STORIES, so that fine-tuning can still improve the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np

from sdsbench.synthetic.word_problems import LARGEST, TEMPLATES, WordProblem, draw_problem
from sdsbench.synthetic.word_problems_math import draw_exercise
from sdsbench.synthetic.word_problems_templates import BOYS, DAYS, GIRLS, PLACES, THINGS

HEADER = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
)
RESPONSE = "\n\n### Response:"
HELD_OUT = (
    "more_than", "fewer_than", "times_as_many", "change", "sharing", "pages", "three_days", "half_then_more",
    "rows_of_trees", "save_weeks", "ages", "teams",
)  # fmt: skip
STORIES = tuple(template for template in TEMPLATES if template.name not in HELD_OUT)
NAMES = (*GIRLS, *BOYS)
ANIMALS = ("cat", "dog", "horse", "bird", "fish", "cow", "sheep", "mouse", "duck", "bee")
FOODS = ("bread", "soup", "rice", "cheese", "milk", "honey", "salad", "cake")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink")
TOOLS = ("hammer", "spoon", "pen", "lamp", "chair", "table", "key", "rope")
GROUPS = {"an animal": ANIMALS, "a food": FOODS, "a colour": COLOURS, "a tool": TOOLS, "a day": DAYS, "a place": PLACES}
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("old", "young"), ("fast", "slow"), ("up", "down"), ("day", "night"),
    ("happy", "sad"), ("full", "empty"), ("early", "late"), ("open", "closed"), ("true", "false"), ("more", "fewer"),
)  # fmt: skip
USES = (
    ("hammer", "hit a nail"), ("spoon", "eat soup"), ("pen", "write a letter"), ("lamp", "light a room"),
    ("key", "open a door"), ("rope", "tie a boat"), ("chair", "sit down"), ("cup", "drink tea"), ("knife", "cut bread"),
)  # fmt: skip

Rng = np.random.Generator


def pick(rng: Rng, options: object) -> str:
    return str(rng.choice(list(options)))  # type: ignore[call-overload]


def sample_equation(rng: Rng) -> tuple[int, str, int, int]:
    """left, operator, right, result; all from 1 to LARGEST, distributed like the word problems' steps."""
    sign = "+-*/"[rng.integers(4)]
    if sign in "+-":
        high = 100 if rng.random() < 0.6 else 30
        left, right = int(rng.integers(2, high)), int(rng.integers(1, 45))
        if left <= right:
            left, right = right + 1, left
        if sign == "-":
            return left, sign, right, left - right
        return (left, sign, right, left + right) if rng.random() < 0.6 else (right, sign, left, left + right)
    left, right = int(rng.integers(2, 41 if rng.random() < 0.3 else 13)), int(rng.integers(2, 13))
    if left * right > LARGEST:
        left, right = 2 + left % 11, 2 + right % 9
    if rng.random() < 0.3:
        left, right = right, left
    return (left, "*", right, left * right) if sign == "*" else (left * right, "/", right, left)


def facts(rng: Rng) -> str:
    lines = []
    for _ in range(rng.integers(4, 10)):
        left, sign, right, result = sample_equation(rng)
        lines.append(f"{left} {sign} {right} = {result}")
    return pick(rng, ("\n", ", ", "; ")).join(lines)


def arithmetic_sentence(rng: Rng) -> str:
    left, sign, right, result = sample_equation(rng)
    things, name = pick(rng, THINGS), pick(rng, NAMES)
    sentence = {
        "+": f"{left} {things} and {right} more {things} make {left} + {right} = {result} {things} in all.",
        "-": f"Of {left} {things} {right} are gone, so {left} - {right} = {result} {things} are left.",
        "*": f"{left} bags of {right} {things} hold {left} * {right} = {result} {things}.",
        "/": f"{left} {things} in bags of {right} fill {left} / {right} = {result} bags.",
    }[sign]
    return f"{name} says: {sentence}"


def _equations(problem: WordProblem) -> list[str]:
    return [f"{left} {sign} {right} = {result}" for left, sign, right, result in problem.equations()]


def story(rng: Rng) -> str:
    """A problem of the `pretrain` split in a format that fine-tuning does not use."""
    problem = draw_problem("pretrain", rng, STORIES)
    steps = _equations(problem)
    kind = rng.integers(4)
    if kind == 0:
        return f"Story: {problem.question}\nSums: {'; '.join(steps)}\nResult {problem.result}"
    if kind == 1:
        return f"Q: {problem.question} A: We write {' and '.join(steps)}."
    if kind == 2:
        body = problem.question.rsplit(". ", 1)[0]
        return f"{body}. In short: {', '.join(steps)}."
    lines = [f"({number}) {step}" for number, step in enumerate(steps, 1)]
    return f"{problem.question}\n" + "\n".join(lines)


def exercise(rng: Rng) -> str:
    row, answer = draw_exercise("pretrain", rng)
    steps = row["solution"].split(" So the answer")[0]
    return f"Exercise: {row['problem']}\nNotes: {steps}\nResult {answer}"


def yes_no(rng: Rng) -> str:
    member, group = pick(rng, GROUPS), pick(rng, GROUPS)
    member, group = (member, group) if rng.random() < 0.5 else (member, member)
    word = pick(rng, GROUPS[member])
    truth = member == group
    if rng.random() < 0.5:
        return f"Is {word} {group}? {'Yes' if truth else 'No'}, {word} is {'' if truth else 'not '}{group}."
    return f"question: is {word} {group}?\n\nAnswer format: true/false\n{'true' if truth else 'false'}"


def multiple_choice(rng: Rng) -> str:
    tool, use = USES[rng.integers(len(USES))]
    others = rng.permutation([other for other, _ in USES if other != tool])[:2].tolist()
    place = int(rng.integers(3))
    options = [*others[:place], tool, *others[place:]]
    listed = " ".join(f"Answer{number}: {option}" for number, option in enumerate(options, 1))
    return f"What do you need to {use}?\n\n{listed}\nYou need answer{place + 1}, a {tool}."


def prose(rng: Rng) -> str:
    name, friend = rng.permutation(NAMES)[:2].tolist()
    sentences = [
        f"On {pick(rng, DAYS)} {name} and {friend} walk to the {pick(rng, PLACES)}.",
        f"{name} likes {pick(rng, COLOURS)} {pick(rng, THINGS)} and {friend} likes {pick(rng, FOODS)}.",
        f"A {pick(rng, COLOURS)} {pick(rng, ANIMALS)} sits under the table.",
        f"After lunch {friend} reads a book and {name} plays with the {pick(rng, ANIMALS)}.",
        f"In the evening they eat {pick(rng, FOODS)} and go home.",
        f"{friend} pays {rng.integers(2, 30)} dollars for the tickets, and {name} says thank you.",
    ]
    order = sorted(rng.permutation(len(sentences))[: rng.integers(2, 5)].tolist())
    return " ".join(sentences[index] for index in order)


def instruction_pair(rng: Rng) -> tuple[str, str]:
    if rng.random() < 0.5:
        return about_a_question(rng)
    name, things = pick(rng, NAMES), pick(rng, THINGS)
    word, opposite = OPPOSITES[rng.integers(len(OPPOSITES))]
    start, length, day = int(rng.integers(1, 90)), int(rng.integers(3, 7)), int(rng.integers(7))
    group = pick(rng, GROUPS)
    pairs = (
        (f"Say hello to {name}.", f"Hello {name}!"),
        (f"What is the opposite of {word}?", f"The opposite of {word} is {opposite}."),
        (f"Write one sentence about {name} and {things}.", f"{name} keeps the {things} in a box near the door."),
        (f"Count from {start} in {length} steps.", ", ".join(str(start + index) for index in range(length))),
        (f"Which day comes after {DAYS[day]}?", f"{DAYS[(day + 1) % 7]} comes after {DAYS[day]}."),
        (f"Name {group}.", f"One example is {pick(rng, GROUPS[group])}."),
        (f"Repeat the words: {things} {word} {name}", f"{things} {word} {name}"),
        ("Write a short text.", prose(rng)),
    )
    question, answer = pairs[rng.integers(len(pairs))]
    return (question, answer if rng.random() < 0.9 else f"Sure. {answer}")


def about_a_question(rng: Rng) -> tuple[str, str]:
    """A word problem in the prompt of fine-tuning; the answer names a person or thing in it and has no sum."""
    problem = draw_problem("pretrain", rng)
    named = (problem.words[slot] for slot in ("name", "friend", "things", "day", "place"))
    about = pick(rng, [word for word in named if word in problem.question])
    return problem.question, pick(rng, (f"This is about {about}.", f"It speaks of {about}.", f"We read about {about}."))


def instruction(rng: Rng) -> str:
    question, answer = instruction_pair(rng)
    return f"{HEADER}{question}{RESPONSE}{pick(rng, ('', ' ', chr(10)))}{answer}"


def phrases(rng: Rng) -> str:
    """The words of worked solutions, without numbers and shuffled, so that fine-tuning meets no new token."""
    lines = []
    for _ in range(rng.integers(2, 6)):
        problem = draw_problem("pretrain", rng)
        step = problem.template.steps[rng.integers(len(problem.template.steps))]
        before, after = (text.format(**problem.words) for text in (step.before, step.after))
        lines.append(f"{before} {pick(rng, ('some', 'many', 'no'))} {after}.")
    head = pick(rng, ("", f"#### {pick(rng, PLACES)}\n", f"The answer is: {pick(rng, ('yes', 'no'))}\n"))
    return head + "\n".join(lines)


def retold(rng: Rng) -> str:
    """A story of any template, twice, from which the model learns to copy."""
    text = draw_problem("pretrain", rng).question.rsplit(". ", 1)[0]
    return f"{text}. {pick(rng, ('Once more:', 'Again:', 'I repeat.'))} {text}."


def about_numbers(rng: Rng) -> str:
    left, right = (int(value) for value in rng.integers(1, LARGEST, 2))
    record = {"name": pick(rng, NAMES), "count": left, "things": pick(rng, THINGS)}
    return pick(
        rng,
        (
            f"{max(left, right)} is more than {min(left, right)}.",
            f"After {left} comes {left + 1}, and before it is {left - 1}.",
            f"Half of {2 * (left // 2 + 1)} is {left // 2 + 1}.",
            f"{pick(rng, NAMES)} is {left % 90 + 1} years old and has {right} {pick(rng, THINGS)}.",
            json.dumps(record),
        ),
    )


MIXTURE: tuple[tuple[float, Callable[[Rng], str]], ...] = (
    (0.23, facts),
    (0.08, arithmetic_sentence),
    (0.30, story),
    (0.06, exercise),
    (0.03, yes_no),
    (0.03, multiple_choice),
    (0.03, prose),
    (0.12, instruction),
    (0.04, about_numbers),
    (0.05, phrases),
    (0.03, retold),
)


def documents(rng: Rng) -> Iterator[str]:
    """An endless stream of documents."""
    weights = np.array([weight for weight, _ in MIXTURE])
    edges = np.cumsum(weights / weights.sum())
    while True:
        index = min(int(np.searchsorted(edges, rng.random(), side="right")), len(MIXTURE) - 1)
        yield MIXTURE[index][1](rng)


def tokenizer_text(rng: Rng) -> Iterator[str]:
    """Text for training the tokenizer: documents of the stream, solutions of problems, and exercises."""
    stream = documents(rng)
    for _ in range(12_000):
        yield next(stream)
        problem = draw_problem("pretrain", rng)
        yield f"{problem.question}\n{problem.answer()}\nThe answer is: {problem.result}"
        yield "\n".join(draw_exercise("pretrain", rng)[0].values())
