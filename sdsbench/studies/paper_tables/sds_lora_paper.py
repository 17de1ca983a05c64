"""SDS-LoRA (arXiv 2606.16454): its comparisons, without the paper's numbers, which could not be obtained."""

from __future__ import annotations

from functools import partial

from sdsbench.results.tables.definition import Row, Table
from sdsbench.results.tables.titles import model_title
from sdsbench.studies.paper_tables.lora_sb_paper import COMMONSENSE, average, method_row, score_column

COMPARED = (
    "lora", "rslora", "pissa", "dora", "lora_plus", "lora_ga", "preconditioned_lora", "altlora", "lora_pro", "sds_lora",
)  # fmt: skip
MODELS = ("gemma_2b", "llama3_8b")
IMAGES = ("cifar100", "resisc45", "food101", "dtd", "cub200", "cars", "sun397")


def _rows(ranks: tuple[int, ...]) -> tuple[Row, ...]:
    return (method_row("full_ft", None), *(method_row(method, rank) for rank in ranks for method in COMPARED))


def math() -> Table:
    columns = [
        score_column(model, "metamath", name, "sds_lora/math", scorer="paper", group=model_title(model))
        for model in MODELS
        for name in ("gsm8k", "math")
    ]
    title = "Trained on 100,000 rows of MetaMathQA, tested on GSM8K and MATH"
    return Table("sds_lora/math", title, _rows((8, 32)), tuple(columns), "sds_lora")


def _commonsense(model: str) -> Table:
    columns = [score_column(model, "commonsense", name, "sds_lora/commonsense", scorer="paper") for name in COMMONSENSE]
    title = f"{model_title(model)} trained on Commonsense170K"
    name = f"sds_lora/commonsense_{model}"
    return Table(name, title, _rows((8, 32)), (*columns, average(model, columns, "accuracy")), "sds_lora")


def _vision(model: str) -> Table:
    columns = [
        score_column(model, f"vision/{name}", f"vision/{name}", "sds_lora/vision", scorer="accuracy") for name in IMAGES
    ]
    title = f"Image classification, {model_title(model)}"
    name = f"sds_lora/vision_{model}"
    return Table(name, title, _rows((8, 16, 32)), (*columns, average(model, columns, "accuracy")), "sds_lora")


commonsense_gemma_2b = partial(_commonsense, "gemma_2b")
commonsense_llama3_8b = partial(_commonsense, "llama3_8b")
vision_vit_base = partial(_vision, "vit_base")
vision_vit_large = partial(_vision, "vit_large")
