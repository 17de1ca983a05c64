"""Learning Rate Matters (arXiv 2602.04998): the mean of GSM8K and MATH at every learning rate that its readme prints.

Rows differ in learning rate on purpose, so nothing is ranked; the table `grid` compares methods at their best rates.
"""

from __future__ import annotations

from dataclasses import replace

from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.studies.paper_tables.lora_sb_paper import method_row, score_column

MODEL, RANK = "qwen3_0.6b", 128
METHODS = ("lora", "dora", "init_ab", "pissa", "milora")
RATES = {
    "2.0e-5": 2.0e-5, "6.3e-5": 6.3246e-5, "1.1e-4": 1.1247e-4, "2.0e-4": 2.0e-4, "3.6e-4": 3.5566e-4,
    "1.1e-3": 1.1247e-3,
}  # fmt: skip
"""Learning rate as printed -> value in conf/sweep/lr_matters/math.yaml."""


def _row(method: str, printed: str, rate: float) -> Row:
    row = method_row(method, RANK)
    return Row(
        f"{row.name}_lr{printed}",
        f"{row.title}, lr {printed}",
        {**row.where, "lr": rate},
        {**row.published, "note": f"lr {printed}; 3 seeds; batch 64"},
    )


def rates() -> Table:
    scores = [
        replace(score_column(MODEL, "metamath", name, "lr_matters/math"), better="", published={})
        for name in ("gsm8k", "math")
    ]
    mean = Column(
        f"{MODEL}/mean_gsm8k_math",
        "Mean",
        {},
        parts=tuple(column.name for column in scores),
        better="",
        published={"model": MODEL, "task": "mean_gsm8k_math", "metric": "accuracy"},
    )
    rows = tuple(_row(method, printed, rate) for printed, rate in RATES.items() for method in METHODS)
    title = "Qwen3-0.6B, r 128, trained on 100,000 rows of MetaMathQA: scores at every printed learning rate"
    return Table("lr_matters/rates", title, rows, (*scores, mean), "lr_matters", "readme")
