"""Graders of a user's own pairs: (gold response, generated text) -> score from 0 to 1. They never raise."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+", re.ASCII)


def exact(gold: str, text: str) -> bool:
    """Whether the texts are equal after collapsing white space and stripping the ends."""
    return _plain(gold) == _plain(text)


def contains(gold: str, text: str) -> bool:
    """Whether the gold response occurs in the text, ignoring case and repeated white space."""
    return _plain(gold).casefold() in _plain(text).casefold()


def numeric(gold: str, text: str) -> bool:
    """Whether the last number of the text equals the last number of the gold response."""
    wanted, found = last_number(gold), last_number(text)
    return wanted is not None and wanted == found


def rouge_l(gold: str, text: str) -> float:
    """F of the longest common subsequence of words (Lin 2004), as Google's rouge_score has it without stemming.

    Its words are taken by rouge_score; the subsequence by Hyyro's bit vectors (2004): a whole number holds a row of the
    usual table, whose filling would take minutes for texts of a book's length.
    """
    words, found = (_words().tokenize(side) for side in (gold, text))
    if not words or not found:
        return 0.0
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    row = whole = (1 << len(words)) - 1
    for word in found:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & whole
    common = len(words) - row.bit_count()
    precision, recall = common / len(found), common / len(words)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def chrf(gold: str, text: str) -> float:
    """F2 of n-grams of characters up to 6 (Popovic 2015), by sacrebleu, of this one sentence."""
    return float(_chrf().sentence_score(text, [gold]).score) / 100


GRADERS: dict[str, Callable[[str, str], float]] = {
    grader.__name__: grader for grader in (exact, numeric, contains, rouge_l, chrf)
}


def last_number(text: str) -> Decimal | None:
    """The last number of a text, whatever its length and without thousands commas; None if there is none."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def _plain(text: str) -> str:
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _words() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=False)


@lru_cache(maxsize=1)
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()
