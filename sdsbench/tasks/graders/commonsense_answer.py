"""Graders of the commonsense benchmarks: find a benchmark's label in a generated text, with or without regard to
case."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def paper(labels: Sequence[str], gold: str, text: str) -> bool:
    """LLM-Adapters' commonsense_evaluate.py (2304.01933): the first label in the text, case-sensitive (TRUE is no
    label)."""
    return _first(labels, text) == gold


def lora_sb(labels: Sequence[str], gold: str, text: str) -> bool:
    """LoRA-SB's commonsense_eval.py (2411.19557): the same after converting the text to lower case (TRUE counts as
    true)."""
    return _first(labels, text.lower()) == gold


GRADERS: dict[str, Callable[[Sequence[str], str, str], bool]] = {"paper": paper, "lora_sb": lora_sb}


def _first(labels: Sequence[str], text: str) -> str | None:
    found = re.search("|".join(labels), text)
    return found.group() if found else None
