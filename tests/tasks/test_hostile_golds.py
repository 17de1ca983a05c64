"""Gold answers in files from others are unchecked: no grader raises on one, and GSM8K's graders accept none of them."""

from __future__ import annotations

import pytest

from sdsbench.tasks import symbolic
from sdsbench.tasks.graders import math, pairs
from sdsbench.tasks.graders.gsm8k import GRADERS


@pytest.mark.parametrize("name", GRADERS)
@pytest.mark.parametrize("gold", ["", "1/0", "9" * 5000, "1e9999999", "$18", "nan", "inf", "-", "eighteen"])
def test_gsm8k_graders_reject_hostile_golds(name: str, gold: str) -> None:
    assert not GRADERS[name](gold, "The answer is: 18\n#### 18")


@pytest.mark.parametrize(
    "gold", ["", "1/0", "9" * 5000, "1e9999999", "10^{9999999}", "\\frac{1}{0}", "\\frac", "(" * 3000]
)
def test_math_graders_raise_for_no_gold(gold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "CPU_SECONDS", 0.5)
    found = {name: grader(gold, "The answer is: 18") for name, grader in math.GRADERS.items()}
    assert set(found.values()) <= {True, False, None} and found["fixed"] is not True


@pytest.mark.parametrize("gold", ["", "1/0", "9" * 5000, "1e9999999", "nan", "-"], ids=lambda gold: gold[:20])
def test_pairs_graders_raise_for_no_gold(gold: str) -> None:
    assert all(0 <= grader(gold, "eighteen") <= 1 for grader in pairs.GRADERS.values())
