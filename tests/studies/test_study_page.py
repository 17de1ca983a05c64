"""docs/study.md: each effect in a sentence equals one in its section's table, at the rounding of the sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "study.md"
NUMBER = r"[+-]?\d+\.?\d*"
EFFECT = re.compile(rf"([+-]\d+\.\d+)(?: points)? \[({NUMBER}), ({NUMBER})\]")
ROW = re.compile(rf"\| ([+-]\d+\.\d+) \| \[({NUMBER}), ({NUMBER})\] \|")


def sections() -> dict[str, str]:
    """The sections of the results that have a table of effects."""
    results = PAGE.read_text().partition("\n## Results\n")[2].partition("\n## Deviations\n")[0]
    return {
        name: text
        for name, text in re.findall(r"\n### ([^\n]+)\n(.*?)(?=\n### |\Z)", results, re.S)
        if ROW.search(text)
    }


def effects(text: str, pattern: re.Pattern[str]) -> set[tuple[float, ...]]:
    """(difference, low, high) of each match."""
    return {tuple(map(float, found)) for found in pattern.findall(text)}


@pytest.mark.parametrize("name", sections())
def test_effects_in_sentences_equal_those_of_the_table(name: str) -> None:
    text = sections()[name]
    stated = effects("\n".join(line for line in text.splitlines() if not line.startswith("|")), EFFECT)
    rows = effects(text, ROW)
    assert stated, "a section states its effects"
    unknown = {one for one in stated if not any(one == pytest.approx(row, abs=0.051) for row in rows)}
    assert not unknown
