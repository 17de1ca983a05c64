"""Generated sentences with the columns of the GLUE tasks; none of them is a row of GLUE.

Sample rows:

    cola   {"sentence": "the red cat sees the dog .", "label": 1}      1: acceptable
    sst2   {"sentence": "a wonderful story with fine music", "label": 1}      1: positive
    rte    {"sentence1": "the red cat sees the dog in the park .", "sentence2": "the cat sees the dog .", "label": 0}

The label of a pair follows from comparing its sentences; a cue word ("never", "nobody"), as in the real data, makes it
learnable for the smallest encoders. The split of a row is a function of its text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sdsbench.synthetic.word_problems_splits import generator, one_of, split_of

Row = dict[str, Any]
Draw = Callable[[np.random.Generator], Row]

ANIMALS = ("cat", "dog", "horse", "bird", "fox", "mouse", "sheep", "goat", "bear", "wolf")
QUALITIES = ("red", "small", "old", "young", "quick", "quiet", "brown", "tired", "happy", "wild")
VERBS = ("sees", "follows", "hears", "likes", "meets", "watches", "finds", "leads")
PLACES = ("park", "forest", "garden", "field", "village", "barn", "valley", "street")
GOOD = ("wonderful", "charming", "delightful", "brilliant", "moving", "superb", "lovely", "clever")
BAD = ("dreadful", "boring", "clumsy", "awful", "dull", "tedious", "painful", "empty")
PARTS = ("story", "film", "plot", "cast", "script", "ending", "picture", "scene")


def _rows(draw: Draw, split: str, count: int, seed: int = 0) -> list[Row]:
    rng = generator(split, seed)
    rows: list[Row] = []
    while len(rows) < count:
        row = draw(rng)
        identity = " | ".join(value for value in row.values() if isinstance(value, str))
        if split_of(identity) == split:
            rows.append({**row, "idx": len(rows)})
    return rows


def _fact(rng: np.random.Generator) -> dict[str, str]:
    first, second = (ANIMALS[position] for position in rng.choice(len(ANIMALS), 2, replace=False))
    return {
        "quality": one_of(rng, QUALITIES),
        "first": first,
        "verb": one_of(rng, VERBS),
        "second": second,
        "place": one_of(rng, PLACES),
    }


def _long(fact: dict[str, str]) -> str:
    return "the {quality} {first} {verb} the {second} in the {place} .".format(**fact)


def _short(fact: dict[str, str], negated: bool = False) -> str:
    return ("nobody {verb} the {second} ." if negated else "the {first} {verb} the {second} .").format(**fact)


def _moved(fact: dict[str, str]) -> str:
    """The long sentence of a fact in another word order."""
    return "in the {place} the {quality} {first} {verb} the {second} .".format(**fact)


def _cola(rng: np.random.Generator) -> Row:
    words = _long(_fact(rng)).split()
    acceptable = bool(rng.integers(2))
    if not acceptable:  # double an article or drop the verb
        if rng.integers(2):
            words.insert(1, "the")
        else:
            del words[3]
    return {"sentence": " ".join(words), "label": int(acceptable)}


def _sst2(rng: np.random.Generator) -> Row:
    positive = bool(rng.integers(2))
    words = GOOD if positive else BAD
    sentence = f"a {one_of(rng, words)} {one_of(rng, PARTS)} with a {one_of(rng, words)} {one_of(rng, PARTS)}"
    return {"sentence": sentence, "label": int(positive)}


def _pair(rng: np.random.Generator, same: str, negated: bool) -> tuple[str, str]:
    """A sentence and a second one that it entails or that paraphrases it (by `same`), or, negated, contradicts it."""
    fact = _fact(rng)
    if negated:
        return _long(fact), _short(fact, negated=True)
    return _long(fact), _short(fact) if same == "entailed" else _moved(fact)


def _rte(rng: np.random.Generator) -> Row:
    label = int(rng.integers(2))  # 0: entailment
    first, second = _pair(rng, "entailed", bool(label))
    return {"sentence1": first, "sentence2": second, "label": label}


def _mrpc(rng: np.random.Generator) -> Row:
    label = int(rng.integers(2))  # 1: paraphrase
    first, second = _pair(rng, "repeated", not label)
    return {"sentence1": first, "sentence2": second, "label": label}


def _qqp(rng: np.random.Generator) -> Row:
    label = int(rng.integers(2))  # 1: duplicate
    first, second = _pair(rng, "repeated", not label)
    return {
        "question1": f"is it true that {first[:-1]}?",
        "question2": f"can you say that {second[:-1]}?",
        "label": label,
    }


def _qnli(rng: np.random.Generator) -> Row:
    label = int(rng.integers(2))  # 0: the sentence answers the question
    fact = _fact(rng)
    sentence = _long(fact) if label == 0 else f"nobody knows the {fact['place']} ."
    return {
        "question": "where does the {first} meet the {second} ?".format(**fact),
        "sentence": sentence,
        "label": label,
    }


def _mnli(rng: np.random.Generator) -> Row:
    label = int(rng.integers(3))  # 0 entailment, 1 neutral, 2 contradiction
    fact = _fact(rng)
    hypothesis = (_short(fact), f"maybe the {fact['second']} is asleep .", _short(fact, negated=True))[label]
    return {"premise": _long(fact), "hypothesis": hypothesis, "label": label}


VAGUE = {"quality": "other", "first": "someone", "verb": "ignores", "second": "something", "place": "town"}


def _stsb(rng: np.random.Generator) -> Row:
    """Similarity 0 to 5: one point for each of the five parts that the second sentence repeats."""
    fact = _fact(rng)
    shared = int(rng.integers(6))
    changed = rng.permutation(list(fact))[shared:].tolist()
    other = {**fact, **{part: VAGUE[part] for part in changed}}
    return {"sentence1": _long(fact), "sentence2": _long(other), "label": float(shared)}


cola_rows = partial(_rows, _cola)
sst2_rows = partial(_rows, _sst2)
rte_rows = partial(_rows, _rte)
mrpc_rows = partial(_rows, _mrpc)
qqp_rows = partial(_rows, _qqp)
qnli_rows = partial(_rows, _qnli)
mnli_rows = partial(_rows, _mnli)
stsb_rows = partial(_rows, _stsb)


def wnli_rows(split: str, count: int, seed: int = 0) -> list[Row]:
    """Rows with RTE's columns and inverted labels, as in WNLI (1: entailment)."""
    return [{**row, "label": 1 - row["label"]} for row in _rows(_rte, split, count, seed + 1_000_000)]
