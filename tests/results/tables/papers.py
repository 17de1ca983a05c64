"""Hand-made runs that fill LoRA-SB's Tables 1 to 3: values near the printed ones, three seeds, some failed runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdsbench.core.record import Parameters, Record
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.definitions import get
from sdsbench.results.tables.published import lookup, parameter_counts
from tests.results.tables.fixtures import make_record, make_samples, write_run

QUESTIONS = 80
FAILURES = {("lora_sb/table1", "full_ft"): "oom", ("lora_sb/table2", "dora_r32"): "failed"}
ABSENT = {("lora_sb/table1", "pissa_r32")}


def write_paper_runs(root: Path, name: str, seeds: int = 3, code_hash: str = "c0") -> list[Record]:
    """Runs for every row of a table; a run answers all evaluations that share its model and task."""
    table, records = get(name), []
    rng = np.random.default_rng(0)
    for row in table.rows:
        if (name, row.name) in ABSENT:
            continue
        for (model, task), columns in _columns_by_training(table).items():
            for seed in range(seeds):
                status = FAILURES.get((name, row.name), "done")
                values = {c.evaluation: _score_near_published(table, row, c, rng) for c in columns}
                answers = {
                    evaluation: make_samples(rng.random(QUESTIONS) < value, columns[0].scorer or "accuracy")
                    for evaluation, value in values.items()
                }
                scores = {e: float(np.mean([a["scores"][columns[0].scorer or "accuracy"] for a in rows]))
                          for e, rows in answers.items()}  # fmt: skip
                record = _record(table, row, model, task, seed, status, scores, columns[0], code_hash)
                write_run(root, record, answers if status == "done" else None)
                records.append(record)
    return records


def _columns_by_training(table: Table) -> dict[tuple[str, str], list[Column]]:
    found: dict[tuple[str, str], list[Column]] = {}
    for column in table.columns:
        if column.evaluation:
            found.setdefault((column.where["model"], column.where["task"]), []).append(column)
    return found


def _score_near_published(table: Table, row: Row, column: Column, rng: np.random.Generator) -> float:
    printed = None
    if row.published:
        printed = lookup(table.paper, {"table": table.number, "note": "", **row.published, **column.published})
    return float(np.clip((printed.value if printed else 60.0) / 100 + rng.normal(0, 0.005), 0, 1))


def _record(
    table: Table,
    row: Row,
    model: str,
    task: str,
    seed: int,
    status: str,
    scores: dict[str, float],
    column: Column,
    code: str,
) -> Record:
    method, rank = row.where["method"], row.where["rank"]
    count = parameter_counts()[model, method, rank]
    settings = {key.removeprefix("config.method."): value for key, value in row.where.items() if "." in key}
    return make_record(
        method,
        seed,
        scores if status == "done" else None,
        model=model,
        task=task,
        rank=rank,
        protocol=column.where["protocol"],
        status=status,
        stage=column.stage,
        scorer=column.scorer or "accuracy",
        n=QUESTIONS,
        source="local",
        dirty=method == "rslora",
        code_hash=code,
        parameters=Parameters(trainable=count, adapter=count, total=10**10),
        config={"method": {"name": method, "rank": rank, **settings}},
    )
