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
from sdsbench.results.statistics import holm, paired_seeds, t_interval
from sdsbench.results.tables.names import method_title

ROOT = Path(__file__).parent.parent / "results/mechanism"
PROBES = {
    "alignment": "first-order alignment",
    "equivalent_effective_rank": "its effective rank",
    "actual_alignment": "alignment of the real step",
    "gradient_A_effective_rank": "effective rank, gradient of A",
    "gradient_B_effective_rank": "effective rank, gradient of B",
    "update_norm_relative": "norm of dW / W0",
}
VARIANTS = {
    "sds": "SDS-LoRA",
    "scaled_bases": "bases keep their singular values",
    "flat_lora": "flat-spectrum LoRA",
    "reset_lora": "LoRA with optimizer reset",
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
    title = method_title(run["method"], int(run["rank"]))
    if run["method"] != "sds_lora":
        return title
    refresh = {"author": "", "never": ", never refreshed", "every": ", refreshed every step"}
    what = VARIANTS[run["config.method.variant"]] + refresh[run["config.method.refresh"]]
    return title.replace("SDS-LoRA", what)


def markdown(frame: pd.DataFrame) -> Iterator[str]:
    """A table for each model and optimizer: means over seeds, differences from LoRA paired by seed."""
    for (model, optimizer), part in frame.groupby(["model", "optimizer"]):
        seeds = part["seed"].nunique()
        yield f"## {model}, {optimizer}, {seeds} seed{'s' * (seeds > 1)}\n"
        columns = ["score", "minus LoRA", "Holm p", "loss of the last tenth", "minus LoRA", *PROBES.values()]
        yield "| variant | rate | " + " | ".join(columns) + " |\n|---|--:|" + "--:|" * len(columns)
        base = part[part["variant"] == BASE].set_index("seed")
        groups = {name: group.set_index("seed") for name, group in part.groupby("variant")}
        others = [name for name in groups if name != BASE]
        tests = {name: _against(groups[name]["score"], base["score"]) for name in others}
        adjusted = dict(zip(others, holm([test.p_value for test in tests.values()]), strict=True))
        for name in sorted(groups, key=lambda name: -groups[name]["score"].mean()):
            group = groups[name]
            cells = [f"{group['rate'].iloc[0]:g}", _mean(group["score"], 1)]
            if name == BASE:
                cells += ["", "", _mean(group["loss"], 3), ""]
            else:
                losses = _against(group["loss"], base["loss"])
                cells += [_difference(tests[name], 1), _p(adjusted[name]), _mean(group["loss"], 3)]
                cells += [_difference(losses, 3)]
            cells += [f"{group[key].mean():.3g}" for key in PROBES]
            yield f"| {name} | " + " | ".join(cells) + " |"
        yield ""


def _against(ours: pd.Series, theirs: pd.Series):
    return paired_seeds(ours.to_dict(), theirs.to_dict())


def _mean(values: pd.Series, digits: int) -> str:
    interval = t_interval(values.tolist())
    return f"{interval.mean:.{digits}f}" + (f" ±{interval.half_width:.{digits}f}" if interval.n > 1 else "")


def _difference(test, digits: int) -> str:
    spread = f" [{test.low:.{digits}f}, {test.high:.{digits}f}]" if test.seeds > 1 else ""
    return f"{test.difference:+.{digits}f}{spread}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value == value else ""


HEAD = """# The mechanism ablation

Written by `python scripts/write_mechanism.py` from `runs/`. Embedded problems, 100 test questions; rates tuned on
validation rows for `micro`, not tuned for `smollm2_135m`. Means over seeds, ± and [ ] 95 % t-intervals, differences
paired by seed; p of the score's difference from LoRA, Holm-adjusted over the table. Probes: means over looks after the
first, of the median over layers.
"""


def main() -> int:
    frame = table()
    write_atomic(ROOT / "ablation.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_atomic(ROOT / "ablation.md", "\n".join([HEAD, *markdown(frame)]).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
