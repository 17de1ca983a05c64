"""LoRA-Pro (arXiv 2407.18242): its GSM8K scores of LLaMA-2 7B trained on MetaMathQA, as another paper quotes them."""

from __future__ import annotations

from sdsbench.results.tables.definition import Table
from sdsbench.studies.paper_tables.lora_sb_paper import method_row, score_column


def gsm8k() -> Table:
    return Table(
        "lora_pro/gsm8k",
        "LLaMA-2 7B trained on MetaMathQA, tested on GSM8K",
        tuple(method_row(method, 8) for method in ("lora", "rslora", "dora", "lora_pro")),
        (score_column("llama2_7b", "metamath", "gsm8k"),),
        "lora_pro",
        "second-hand",
    )
