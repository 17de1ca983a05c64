"""Golds of stored answers, which nothing checks: no scorer raises on one, and those of GSM8K count none as right."""

from __future__ import annotations

import pytest

from sdsbench.tasks import symbolic
from sdsbench.tasks.graders import math_answer as math
from sdsbench.tasks.graders import pairs_answer as pairs
from sdsbench.tasks.graders.gsm8k_answer import GRADERS


@pytest.mark.parametrize("name", GRADERS)
@pytest.mark.parametrize("gold", ["", "1/0", "9" * 5000, "1e9999999", "$18", "nan", "inf", "-", "eighteen"])
def test_no_gold_raises(name: str, gold: str) -> None:
    assert not GRADERS[name](gold, "The answer is: 18\n#### 18")


@pytest.mark.parametrize(
    "gold", ["", "1/0", "9" * 5000, "1e9999999", "10^{9999999}", "\\frac{1}{0}", "\\frac", "(" * 3000]
)
def test_no_gold_of_math_raises(gold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "CPU_SECONDS", 0.5)
    found = {name: grader(gold, "The answer is: 18") for name, grader in math.GRADERS.items()}
    assert set(found.values()) <= {True, False, None} and found["fixed"] is not True


@pytest.mark.parametrize("gold", ["", "1/0", "9" * 5000, "1e9999999", "nan", "-"], ids=lambda gold: gold[:20])
def test_no_gold_of_pairs_raises(gold: str) -> None:
    assert all(0 <= grader(gold, "eighteen") <= 1 for grader in pairs.GRADERS.values())
