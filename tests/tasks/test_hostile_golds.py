"""Golds of stored answers, which nothing checks: scorers of GSM8K raise on none and count none as right."""

from __future__ import annotations

import pytest

from sdsbench.tasks.graders.gsm8k import GRADERS


@pytest.mark.parametrize("name", GRADERS)
@pytest.mark.parametrize("gold", ["", "1/0", "9" * 5000, "1e9999999", "$18", "nan", "inf", "-", "eighteen"])
def test_no_gold_raises(name: str, gold: str) -> None:
    assert not GRADERS[name](gold, "The answer is: 18\n#### 18")
