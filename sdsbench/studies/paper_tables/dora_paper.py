"""DoRA (arXiv 2402.09353): commonsense results of its readme; single runs, one learning rate per model."""

from __future__ import annotations

from functools import partial

from sdsbench.results.tables.definition import Table
from sdsbench.results.tables.titles import model_title
from sdsbench.studies.paper_tables.lora_sb_paper import COMMONSENSE, average, method_row, score_column


def _table(model: str) -> Table:
    scores = [score_column(model, "commonsense", name) for name in COMMONSENSE]
    return Table(
        f"dora/commonsense_{model}",
        f"{model_title(model)} trained on Commonsense170K",
        (method_row("lora", 32), method_row("dora", 16), method_row("dora", 32)),
        (*scores, average(model, scores, "accuracy")),
        "dora",
        "readme",
    )


commonsense_llama3_8b = partial(_table, "llama3_8b")
commonsense_llama2_7b = partial(_table, "llama2_7b")
