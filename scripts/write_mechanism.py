"""Writes results/mechanism/ablation.md and .csv from the records of the mechanism sweeps: each variant against LoRA.

python scripts/write_mechanism.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import sdsbench
from sdsbench.core.files import write_atomic
from sdsbench.results.statistics.correction import holm
from sdsbench.results.statistics.intervals import t_interval
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.contrast import Contrast, contrast
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.names import method_title
from sdsbench.results.tables.runs import Run, load

ROOT = Path(__file__).parent.parent / "results/mechanism"
PROBES = {
    "alignment": "first-order alignment",
    "equivalent_effective_rank": "its effective rank",
    "actual_alignment": "alignment of the real step",
    "gradient_A_effective_rank": "effective rank, gradient of A",
    "gradient_B_effective_rank": "effective rank, gradient of B",
    "update_norm_relative": "norm of dW / W0",
}
BASE = method_title("lora", 8)


def table() -> pd.DataFrame:
    """A row a run that is no tuning run: model, optimizer, variant, seed, rate, score, loss, means over its looks."""
    runs = sdsbench.load_runs(ROOT / "runs")
    runs = runs[(runs["config.eval.split"] == "test") & (runs["status"] == "done")]
    scores = sdsbench.load_scores(ROOT / "runs")
    scores = scores[scores["headline"] & (scores["stage"] == "trained")].set_index("run_id")["value"]
    probes = sdsbench.load_steps(ROOT / "runs", "probe")
    looks = probes[probes["step"] > 1].groupby("run_id")[list(PROBES)].mean()
    frame = pd.DataFrame(
        {
            "run_id": runs["run_id"],
            "model": runs["model"],
            "optimizer": runs["config.train.optimizer"],
            "variant": [_variant(run) for _, run in runs.iterrows()],
            "seed": runs["seed"],
            "rate": runs["lr"],
            "score": 100 * runs["run_id"].map(scores),
            "loss": runs["losses.tail_mean"],
        }
    )
    return frame.join(looks, on="run_id").sort_values(["model", "optimizer", "variant", "seed"])


def _variant(run: pd.Series) -> str:
    if run["method"] != "sds_lora":
        return method_title(run["method"], int(run["rank"]))
    refresh = {"author": "", "never": ", never refreshed", "every": ", refreshed every step"}
    form = f"method.variant={run['config.method.variant']}"
    return method_title(run["method"], int(run["rank"]), form) + refresh[run["config.method.refresh"]]


def markdown(frame: pd.DataFrame, runs: dict[str, Run]) -> Iterator[str]:
    """A table for each model and optimizer: means over seeds, and differences to LoRA tested as tables test them."""
    for (model, optimizer), part in frame.groupby(["model", "optimizer"]):
        seeds = part["seed"].nunique()
        yield f"## {model}, {optimizer}, {seeds} seed{'s' * (seeds > 1)}\n"
        columns = ["score", "minus LoRA", "Holm p", "loss of the last tenth", "minus LoRA", *PROBES.values()]
        yield "| variant | rate | " + " | ".join(columns) + " |\n|---|--:|" + "--:|" * len(columns)
        groups = {name: group.set_index("seed") for name, group in part.groupby("variant")}
        others = [name for name in groups if name != BASE]
        made = _built(groups, runs)
        scores, losses = ({name: _against(made, column, name) for name in others} for column in made.table.columns)
        adjusted = dict(zip(others, holm([scores[name].comparison.p_value for name in others]), strict=True))
        for name in sorted(groups, key=lambda name: -groups[name]["score"].mean()):
            group = groups[name]
            cells = [f"{group['rate'].iloc[0]:g}", _mean(group["score"], 1)]
            if name == BASE:
                cells += ["", "", _mean(group["loss"], 3), ""]
            else:
                cells += [_difference(scores[name], 1), _p(adjusted[name]), _mean(group["loss"], 3)]
                cells += [_difference(losses[name], 3)]
            cells += [f"{group[key].mean():.3g}" for key in PROBES]
            yield f"| {name} | " + " | ".join(cells) + " |"
        yield ""


def _built(groups: dict[str, pd.DataFrame], runs: dict[str, Run]) -> Built:
    """Scores and losses of the variants as cells of a table."""
    rows = tuple(Row(name, name, {"run_id": frozenset(group["run_id"])}) for name, group in groups.items())
    score = Column("score", "score", {}, evaluation="gsm8k")
    loss = Column("loss", "loss", {}, "losses.tail_mean", format="number", better="lower")
    members = [runs[run_id] for group in groups.values() for run_id in group["run_id"]]
    return build(Table("mechanism", "mechanism", rows, (score, loss), real_data=False), members)


def _against(made: Built, column: Column, name: str) -> Contrast:
    """The difference to LoRA by the rule of all tables (results/tables/contrast.py), which looks at no score."""
    return contrast(column, made.cells[name, column.name], made.cells[BASE, column.name])


def _mean(values: pd.Series, digits: int) -> str:
    interval = t_interval(values.tolist())
    return f"{interval.mean:.{digits}f}" + (f" ±{interval.half_width:.{digits}f}" if interval.n > 1 else "")


def _difference(found: Contrast, digits: int) -> str:
    c = found.comparison
    spread = f" [{c.low:.{digits}f}, {c.high:.{digits}f}]" if c.low == c.low else ""
    return f"{c.difference:+.{digits}f}{spread}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value == value else ""


HEAD = """# The mechanism ablation

Written by `python scripts/write_mechanism.py` from `runs/`. Embedded problems, 100 test questions; rates tuned on
validation rows for `micro`, not tuned for `smollm2_135m`. Means over seeds, ± and [ ] 95 % t-intervals; differences
are tested as in all tables: over unpaired seeds, since the seed of a language model sets only the order of its data,
and over questions; p of the score's difference from LoRA, Holm-adjusted over the table. Probes: means over looks after
the first, of the median over layers.
"""


def main() -> int:
    frame = table()
    runs = {run.id: run for run in load(ROOT / "runs")[0]}
    write_atomic(ROOT / "ablation.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_atomic(ROOT / "ablation.md", "\n".join([HEAD, *markdown(frame, runs)]).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
