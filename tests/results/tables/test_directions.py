"""Scores of which lower values are better, beside scores of which higher values are better."""

from __future__ import annotations

from sdsbench.core.record import Score, score_text
from sdsbench.results.tables.definition import column_format


def score(value: float, **keys: object) -> Score:
    return Score(evaluation="pairs", version=1, scorer="loss", stage="trained", value=value, n=3, **keys)  # type: ignore[arg-type]


def test_rank_and_text_follow_direction_and_unit() -> None:
    loss, share = score(2.5, better="lower", unit="number"), score(0.25)
    assert loss.rank == -2.5 and share.rank == 0.25
    assert loss.shown(2.5) == "2.5000" and share.shown(0.25) == "25.00"
    assert score_text(-0.25, "share", "+") == "-25.00" and score_text(0.00123, "number", "+") == "+0.0012"
    assert column_format(loss) == {"format": "number", "better": "lower"}
    assert column_format(share) == {"format": "score", "better": "higher"}
