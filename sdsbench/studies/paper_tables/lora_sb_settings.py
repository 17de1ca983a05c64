"""LoRA-SB's Tables 8 and 9: hyperparameters of this project's protocols beside those printed in the paper."""

from __future__ import annotations

from functools import cache, partial

import pandas as pd

from sdsbench.core.leaves import leaves
from sdsbench.results.tables.definition import FactsTable
from sdsbench.results.tables.published import hyperparameters
from sdsbench.runs.configuration.compose import compose_run


def frame(number: str) -> pd.DataFrame:
    """One row per setting and key: ours (composed from conf/protocol), paper, equal, note."""
    printed = hyperparameters()
    rows = []
    for row in printed[printed["table"] == number].to_dict("records"):
        ours = _composed(row["setting"])[row["key"]]
        rows.append(
            {
                "protocol": f"lora_sb/{row['setting']}",
                "key": row["key"],
                "ours": str(ours),
                "paper": row["value"],
                "equal": _same(str(ours), row["value"]),
                "note": row["note"],
            }
        )
    return pd.DataFrame(rows)


def _table(number: str) -> FactsTable:
    title = f"Training settings: ours beside the paper's (arXiv 2411.19557 v4, Table {number})"
    return FactsTable(f"lora_sb/table{number}", title, partial(frame, number), "llp{3.2cm}p{3.2cm}lp{2cm}")


@cache
def _composed(setting: str) -> dict[str, object]:
    task = ["task=glue/rte"] if setting == "glue" else []
    return dict(leaves(compose_run([f"protocol=lora_sb/{setting}", "method=lora", *task]).model_dump()))


def _same(ours: str, paper: str) -> bool:
    try:
        return float(ours) == float(paper)
    except ValueError:
        return ours == paper


table8 = partial(_table, "8")
table9 = partial(_table, "9")
