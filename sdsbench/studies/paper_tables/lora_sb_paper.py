"""LoRA-SB (arXiv 2411.19557 v4), Tables 1 to 7. Tables 8 and 9 are in lora_sb_settings.py."""

from __future__ import annotations

from functools import partial
from typing import Any

from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.titles import method_title, model_title, task_title

FIXED_RANK = ("lora", "rslora", "pissa", "dora", "lora_pro")
SQUARE = ("lora_xs", "lora_sb")
COMMONSENSE = (
    "boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa",
)  # fmt: skip
PRINTED = {"social_i_qa": "siqa"}
GLUE = ("cola", "rte", "mrpc", "stsb", "qnli", "sst2")
ARITHMETIC_MODELS = ("mistral_7b", "gemma2_9b")
# The methods as published; ablations have their own rows.
PLAIN: dict[str, dict[str, Any]] = {
    "lora_sb": {
        "config.method.start": "gradient",
        "config.method.noise_std": 0.0,
        "config.method.samples": None,
        "config.method.approximation": True,
        "config.method.sign": True,
    },
    "sds_lora": {"config.method.variant": "sds", "config.method.refresh": "author"},
}
INIT_SAMPLES = (1, 5, 25, 50, 100, 200, 500)


def method_rows(rank: int, square_ranks: tuple[int, ...]) -> tuple[Row, ...]:
    """Full fine-tuning, the LoRA family at one rank, LoRA-XS and LoRA-SB at three, and SDS-LoRA (not in the paper)."""
    pairs: list[tuple[str, int | None]] = [("full_ft", None), *((method, rank) for method in FIXED_RANK)]
    pairs += [(method, r) for method in SQUARE for r in square_ranks]
    rows = [method_row(method, r) for method, r in pairs]
    return (*rows, method_row("sds_lora", rank))


def method_row(method: str, rank: int | None) -> Row:
    """The row of a method at one rank; None: a method without rank."""
    printed = {"method": method, "rank": "" if rank is None else str(rank)}
    name = method if rank is None else f"{method}_r{rank}"
    return Row(name, method_title(method, rank), {"method": method, "rank": rank, **PLAIN.get(method, {})}, printed)


def parameter_column(model: str, trained_on: str, protocol: str, group: str) -> Column:
    """The column of adapter parameter counts of a model."""
    return Column(
        name=f"{model}/params",
        title="Params",
        where={"model": model, "protocol": protocol},
        measure="parameters.adapter",
        group=group,
        format="count",
        better="",
        published={"model": model, "task": trained_on, "metric": "params"},
    )


def score_column(model: str, task: str, evaluation: str, protocol: str | None = None, **options: Any) -> Column:
    """A column of one evaluation of one model trained on one task; without `protocol` its runs can be of any protocol
    but must agree in their setting."""
    name = evaluation.split("/")[-1]
    printed = {"model": model, "task": PRINTED.get(name, name), "metric": options.pop("metric", "accuracy")}
    return Column(
        name=f"{model}/{name}",
        title=task_title(evaluation),
        where={"model": model, "task": task} | ({"protocol": protocol} if protocol else {}),
        evaluation=evaluation,
        published=printed,
        **options,
    )


def _arithmetic_columns(model: str) -> list[Column]:
    return [
        score_column(model, "metamath", name, "lora_sb/arithmetic", scorer="paper", group=model_title(model))
        for name in ("gsm8k", "math")
    ]


def table1() -> Table:
    columns = []
    for model in ARITHMETIC_MODELS:
        columns.append(parameter_column(model, "metamath", "lora_sb/arithmetic", model_title(model)))
        columns += _arithmetic_columns(model)
    return Table(
        "lora_sb/table1",
        "Arithmetic reasoning: trained on MetaMathQA, tested on GSM8K and MATH",
        method_rows(32, (32, 64, 96)),
        tuple(columns),
        "lora_sb",
        "1",
    )


def table2() -> Table:
    model, protocol = "llama3.2_3b", "lora_sb/commonsense"
    scores = [score_column(model, "commonsense", name, protocol, scorer="lora_sb") for name in COMMONSENSE]
    return Table(
        "lora_sb/table2",
        "Commonsense reasoning: Llama-3.2 3B trained on Commonsense170K",
        method_rows(32, (32, 64, 96)),
        (parameter_column(model, "commonsense170k", protocol, ""), *scores, average(model, scores, "accuracy")),
        "lora_sb",
        "2",
    )


def average(model: str, parts: list[Column], metric: str) -> Column:
    """The column with the mean of other columns."""
    return Column(
        name=f"{model}/average",
        title="Avg.",
        where={},
        parts=tuple(part.name for part in parts),
        published={"model": model, "task": "average", "metric": metric},
    )


def _table3(name: str, stage: str, words: str) -> Table:
    model, protocol = "roberta_large", "lora_sb/glue"
    metrics = {"cola": "matthews", "stsb": "pearson"}
    scores = [
        score_column(model, f"glue/{task}", f"glue/{task}", protocol, metric=metrics.get(task, "accuracy"), stage=stage)
        for task in GLUE
    ]
    return Table(
        name,
        f"GLUE, RoBERTa-large: Matthews (CoLA), Pearson (STS-B), accuracy; {words}",
        method_rows(8, (8, 16, 24)),
        (parameter_column(model, "glue", protocol, ""), *scores, average(model, scores, "score")),
        "lora_sb",
        "3",
    )


def table4() -> Table:
    starts: list[tuple[str, str, str, dict[str, Any]]] = [
        ("kaiming", "SVD of a Kaiming matrix", "svd_of_kaiming", {"config.method.start": "kaiming"})
    ]
    for power in (2, 3, 4, 5):
        noise = {"config.method.noise_std": 10.0**-power}
        starts.append(
            (f"noise_1e-{power}", f"update + N(0, 1e-{power})", f"svd_of_update_plus_noise_1e-{power}", noise)
        )
    starts.append(("update", "SVD of the update", "svd_of_update", {}))
    rows = [_sb_row(name, title, f"init={printed}", where) for name, title, printed, where in starts]
    columns = _arithmetic_columns("mistral_7b")
    title = "LoRA-SB, r 96: what the start approximates"
    return Table("lora_sb/table4", title, tuple(rows), tuple(columns), "lora_sb", "4")


def table5() -> Table:
    rows = [
        _sb_row(f"samples_{count}", f"{count} rows", f"init_samples={count}", {"config.method.samples": count})
        for count in INIT_SAMPLES
    ]
    columns = [column for model in ARITHMETIC_MODELS for column in _arithmetic_columns(model)]
    title = "LoRA-SB, r 96: training rows whose gradients make the start"
    return Table("lora_sb/table5", title, tuple(rows), tuple(columns), "lora_sb", "5")


def _sb_row(name: str, title: str, note: str, where: dict[str, Any]) -> Row:
    fixed = {"method": "lora_sb", "rank": 96, **PLAIN["lora_sb"]}
    return Row(name, title, {**fixed, **where}, {"method": "lora_sb", "rank": "96", "note": note})


def table6() -> Table:
    settings = (
        ("mistral_7b", "metamath", "lora_sb/arithmetic", "metamath"),
        ("gemma2_9b", "metamath", "lora_sb/arithmetic", "metamath"),
        ("llama3.2_3b", "commonsense", "lora_sb/commonsense", "commonsense170k"),
    )
    rows = tuple(
        Row(
            model,
            model_title(model),
            {"model": model, "task": task, "protocol": protocol, "rank": 96, **PLAIN["lora_sb"]},
            {"model": model, "task": printed, "method": "lora_sb", "rank": ""},
        )
        for model, task, protocol, printed in settings
    )
    columns = (
        Column("init_seconds", "Start", {"method": "lora_sb"}, "seconds.init", format="seconds", better="",
               published={"metric": "init_seconds"}),
        Column("epoch_seconds", "One epoch", {"method": "lora_sb"}, "epoch_seconds", format="seconds", better="",
               published={"metric": "epoch_seconds"}),
        Column("init_share", "Start / training", {"method": "lora_sb"}, "init_share", format="share", better=""),
    )  # fmt: skip
    note = "Times of different devices are not comparable; the share is."
    return Table("lora_sb/table6", "LoRA-SB: time of the start", rows, columns, "lora_sb", "6", note=note)


def table7() -> Table:
    rows = []
    for model, rank in (("roberta_large", 8), ("llama3.2_3b", 32), ("mistral_7b", 32), ("gemma2_9b", 32)):
        ranks = (16, 24) if rank == 8 else (64, 96)
        for method, r in (("lora", rank), *(("lora_sb", r) for r in ranks)):
            row = method_row(method, r)
            where = {**row.where, "model": model}
            title = f"{model_title(model)}: {row.title}"
            rows.append(Row(f"{model}/{row.name}", title, where, {**row.published, "model": model}))
    columns = tuple(
        Column(name, title, {}, name, format="count", better="",
               published={"task": "inference_length_256", "metric": name})
        for name, title in (("macs", "MACs"), ("flops", "FLOPs"))
    )  # fmt: skip
    title = "Cost of one forward pass over 256 tokens, adapter not merged"
    return Table("lora_sb/table7", title, tuple(rows), columns, "lora_sb", "7")


table3 = partial(_table3, "lora_sb/table3", "best_epoch", "best epoch on the validation split, as in the paper")
table3_last_epoch = partial(_table3, "lora_sb/table3_last_epoch", "trained", "last epoch")
