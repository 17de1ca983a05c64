"""docs/study.md: an effect that a sentence names is one of the table of its section, at the sentence's rounding."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "study.md"
NUMBER = r"[+-]?\d+\.?\d*"
EFFECT = re.compile(rf"([+-]\d+\.\d+)(?: points)? \[({NUMBER}), ({NUMBER})\]")
ROW = re.compile(rf"\| ([+-]\d+\.\d+) \| \[({NUMBER}), ({NUMBER})\] \|")


def sections() -> dict[str, str]:
    results = PAGE.read_text().partition("\n## Results\n")[2].partition("\n## Deviations\n")[0]
    return {
        name: text
        for name, text in re.findall(r"\n### ([^\n]+)\n(.*?)(?=\n### |\Z)", results, re.S)
        if ROW.search(text)
    }


def effects(text: str, pattern: re.Pattern[str]) -> set[tuple[float, ...]]:
    return {tuple(map(float, found)) for found in pattern.findall(text)}


@pytest.mark.parametrize("name", sections())
def test_effects_in_sentences_are_those_of_the_table(name: str) -> None:
    text = sections()[name]
    said = effects("\n".join(line for line in text.splitlines() if not line.startswith("|")), EFFECT)
    rows = effects(text, ROW)
    assert said, "a section names its effects"
    unknown = {one for one in said if not any(one == pytest.approx(row, abs=0.051) for row in rows)}
    assert not unknown
