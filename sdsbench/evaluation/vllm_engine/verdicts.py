"""Trust another engine's answers only where its verdicts on some questions equal those of this project's generation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from sdsbench.evaluation.generation import GeneratedAnswer, Generator, Request
from sdsbench.evaluation.text import Verdicts

COMPARED = 64
"""Questions that both engines answer, spread evenly over all."""


@dataclass(frozen=True)
class Compared:
    """Answers, and on how many of the compared questions the other engine's verdicts and texts differed."""

    answers: list[GeneratedAnswer]
    compared: int
    other_verdicts: int
    other_texts: int


def trusted_answers(own: Generator, other: Generator, requests: Sequence[Request], verdicts: Verdicts) -> Compared:
    """The other engine's answers, if all verdicts on the compared questions are equal; else this project's own.

    Progress counts the other engine's answers, which are one for each request.
    """
    own = _without_counting(own)
    theirs = other.answers(requests)
    places = compared_places(len(requests))
    ours = own.answers([requests[place] for place in places])
    pairs = [(place, answer.text, theirs[place].text) for place, answer in zip(places, ours, strict=True)]
    other_verdicts = sum(verdicts(place, mine) != verdicts(place, yours) for place, mine, yours in pairs)
    other_texts = sum(mine != yours for _, mine, yours in pairs)
    answers = own.answers(requests) if other_verdicts else theirs
    return Compared(answers, len(places), other_verdicts, other_texts)


def compared_places(count: int) -> list[int]:
    """At most COMPARED of `count` places, spread evenly."""
    some = min(count, COMPARED)
    return [place * count // some for place in range(some)]


def _without_counting(own: Generator) -> Generator:
    """The same generator, whose progress stays interruptible but counts no rows."""
    quiet, progress = copy.copy(own), own.progress
    quiet.progress = lambda rows: progress(0)
    return quiet
