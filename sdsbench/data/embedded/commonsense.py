"""Generated questions in the templates of LLM-Adapters' eight benchmarks; none of them is a row of those benchmarks.

A sample row of `boolq_rows`:

    instruction  Please answer the following question with true or false, question: is a small hammer a kind of tool?
                 <blank line>
                 Answer format: true/false
    input
    output       the correct answer is true
    answer       true

What is to be known is a table of 64 things in 8 kinds, 12 chores and 12 events, small enough for the smallest models.
The split of a question is a function of its text without the options' order, so no split can hold another's questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sdsbench.data.embedded.word_problems_splits import generator, split_of

KINDS = {
    "animal": ("cat", "dog", "horse", "sheep", "rabbit", "mouse", "lion", "goat"),
    "fruit": ("apple", "pear", "plum", "peach", "lemon", "cherry", "grape", "melon"),
    "tool": ("hammer", "saw", "drill", "wrench", "pliers", "chisel", "file", "spade"),
    "vehicle": ("car", "truck", "bus", "train", "tram", "van", "bicycle", "boat"),
    "drink": ("water", "milk", "juice", "tea", "coffee", "cider", "lemonade", "cocoa"),
    "garment": ("shirt", "coat", "hat", "scarf", "glove", "sock", "dress", "jacket"),
    "instrument": ("piano", "violin", "guitar", "flute", "drum", "trumpet", "harp", "cello"),
    "colour": ("red", "blue", "green", "yellow", "purple", "orange", "brown", "grey"),
}
QUALITIES = ("small", "large", "new", "old", "fine", "plain", "cheap", "good", "clean", "light", "heavy", "nice")
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Karen", "Leo")

# chore, what one does it with
CHORES = (
    ("drive a nail into a board", "a hammer"), ("cut a board in two", "a saw"), ("dig a hole in the garden", "a spade"),
    ("dry wet hands", "a towel"), ("sweep the floor", "a broom"), ("cut a sheet of paper", "scissors"),
    ("eat hot soup", "a spoon"), ("write a letter", "a pen"), ("open a locked door", "a key"),
    ("tie two sticks together", "a rope"), ("light a dark room", "a lamp"), ("carry water upstairs", "a bucket"),
)  # fmt: skip
USELESS = ("a cloud", "a song", "a shadow", "a dream", "a joke", "a rumour")

# event, the feeling after it, the sentence that follows it
EVENTS = (
    ("won the race", "happy", "smiles and waves to people"), ("lost the keys", "upset", "looks through every pocket"),
    ("worked all night", "tired", "yawns and goes to bed"), ("got a present", "happy", "opens the box with a smile"),
    ("missed the train", "upset", "looks at the empty track"), ("ran up the hill", "tired", "sits down to breathe"),
    ("passed the test", "happy", "calls a friend with the news"), ("broke a cup", "upset", "picks up the pieces"),
    ("moved all the boxes", "tired", "lies down on the sofa"), ("found a coin", "happy", "puts it into a purse"),
    ("spilled the paint", "upset", "wipes the floor dry"), ("walked for ten hours", "tired", "takes off both shoes"),
)  # fmt: skip
FEELINGS = ("happy", "upset", "tired")

# a _ that did not fit: (what is too large, what is too small)
OUTER = ("case", "bag", "drawer", "basket", "trunk", "cupboard", "crate", "pocket")
INNER = ("ball", "lamp", "book", "statue", "vase", "clock", "bottle", "radio")

Row = dict[str, str]
Draw = Callable[[np.random.Generator], tuple[str, str, Sequence[str], str]]
"""rng -> (what identifies the question, its instruction, its labels, the right label)."""


def _rows(draw: Draw, split: str, count: int, seed: int) -> list[Row]:
    rng = generator(split, seed)
    rows: list[Row] = []
    while len(rows) < count:
        identity, instruction, labels, answer = draw(rng)
        if split_of(identity) == split:
            instruction += f"Answer format: {'/'.join(labels)}"
            rows.append(
                {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}
            )
    return rows


def _one(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _options(
    rng: np.random.Generator, word: str, right: str, wrong: Sequence[str], between: str = " "
) -> tuple[str, list[str], str]:
    """The options in random order as text (`Answer1: ... Answer2: ...`), their labels, the label of the right one."""
    options = [right, *wrong]
    options = [options[position] for position in rng.permutation(len(options))]
    text = between.join(f"{word}{number}: {option}" for number, option in enumerate(options, 1))
    labels = [f"{word.lower()}{number}" for number in range(1, len(options) + 1)]
    return text, labels, labels[options.index(right)]


def _strangers(rng: np.random.Generator, kind: str, count: int) -> list[str]:
    """`count` things of other kinds."""
    others = [thing for other, things in KINDS.items() if other != kind for thing in things]
    return [others[position] for position in rng.choice(len(others), count, replace=False)]


def _boolq(rng: np.random.Generator) -> tuple[str, str, Sequence[str], str]:
    true = bool(rng.integers(2))
    kind, quality = _one(rng, list(KINDS)), _one(rng, QUALITIES)
    thing = _one(rng, KINDS[kind]) if true else _strangers(rng, kind, 1)[0]
    question = f"is a {quality} {thing} a kind of {kind}?"
    head = f"Please answer the following question with true or false, question: {question}\n\n"
    return question, head, ("true", "false"), "true" if true else "false"


def _science(rng: np.random.Generator) -> tuple[str, str, Sequence[str], str]:
    kind, name = _one(rng, list(KINDS)), _one(rng, NAMES)
    right = _one(rng, KINDS[kind])
    question = f"{name} looks for a {kind}. Which of these is a {kind}?"
    options, labels, answer = _options(rng, "Answer", right, _strangers(rng, kind, 3))
    return (
        question + right,
        f"Please choose the correct answer to the question: {question}\n\n{options}\n\n",
        labels,
        answer,
    )


def _piqa(rng: np.random.Generator) -> tuple[str, str, Sequence[str], str]:
    chore, tool = CHORES[int(rng.integers(len(CHORES)))]
    useless, quality = _one(rng, USELESS), _one(rng, QUALITIES)
    question = f"How do I {chore} in a {quality} house?"
    options, labels, answer = _options(rng, "Solution", f"Use {tool}.", [f"Use {useless}."], "\n\n")
    head = f"Please choose the correct solution to the question: {question}\n\n{options}\n\n"
    return question + useless, head, labels, answer


def _social_i_qa(rng: np.random.Generator) -> tuple[str, str, Sequence[str], str]:
    event, feeling, _ = EVENTS[int(rng.integers(len(EVENTS)))]
    name, friend = _one(rng, NAMES), _one(rng, NAMES)
    question = f"{name} {event} and told {friend}. How would {name} feel afterwards?"
    options, labels, answer = _options(rng, "Answer", feeling, [other for other in FEELINGS if other != feeling])
    return question, f"Please choose the correct answer to the question: {question}\n\n{options}\n\n", labels, answer


def _hellaswag(rng: np.random.Generator) -> tuple[str, str, Sequence[str], str]:
    chosen = int(rng.integers(len(EVENTS)))
    event, _, ending = EVENTS[chosen]
    wrong = [EVENTS[position][2] for position in rng.permutation(len(EVENTS)) if position != chosen][:3]
    name, place = _one(rng, NAMES), _one(rng, OUTER)
    context = f"Daily life: {name} {event} near a {place}. {name}"
    options, labels, answer = _options(rng, "Ending", f"{ending}.", [f"{text}." for text in wrong])
    head = f"Please choose the correct ending to complete the given sentence: {context}\n\n{options}\n\n"
    return context, head, labels, answer


def _winogrande(rng: np.random.Generator) -> tuple[str, str, Sequence[str], str]:
    inner, outer, quality = _one(rng, INNER), _one(rng, OUTER), _one(rng, QUALITIES)
    too_large = bool(rng.integers(2))
    sentence = (
        f"The {quality} {inner} did not fit into the {outer} because the _ was too {'large' if too_large else 'small'}."
    )
    right, wrong = (inner, outer) if too_large else (outer, inner)
    options, labels, answer = _options(rng, "Option", right, [wrong])
    request = "Please choose the correct answer to fill in the blank to complete the given sentence"
    head = f"{request}: {sentence}\n\n{options} "
    return sentence, head, labels, answer


def boolq_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_boolq, split, count, seed)


def piqa_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_piqa, split, count, seed)


def social_i_qa_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_social_i_qa, split, count, seed)


def hellaswag_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_hellaswag, split, count, seed)


def winogrande_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_winogrande, split, count, seed)


def arc_easy_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_science, split, count, seed)


def arc_challenge_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_science, split, count, seed + 1_000_000)


def openbookqa_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    return _rows(_science, split, count, seed + 2_000_000)


def mixture_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    """All six kinds of question in equal shares and random order: what CommonSense170K is to the benchmarks."""
    draws = (_boolq, _piqa, _social_i_qa, _hellaswag, _winogrande, _science)
    share = -(-count // len(draws))
    rows = [row for draw in draws for row in _rows(draw, split, share, seed)]
    order = generator(split, seed).permutation(len(rows))[:count]
    return [rows[position] for position in order]
