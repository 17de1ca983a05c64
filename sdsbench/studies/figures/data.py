"""Probed runs as frames: a row a layer and look, with what names the run's line in a figure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sdsbench.core import samples
from sdsbench.core.errors import Refused, Unavailable
from sdsbench.methods.base import lookup
from sdsbench.results import setting
from sdsbench.results.figure_style import Palette
from sdsbench.results.frames import Folders, load_runs, load_steps
from sdsbench.results.tables.names import method_order, method_title
from sdsbench.results.tables.runs import load as load_as_tables_do

VARIANT_KEYS = ("config.method.variant", "config.method.refresh", "rank", "config.method.mode")


@dataclass(frozen=True)
class ProbedRuns:
    """What all figures are drawn from."""

    runs: pd.DataFrame  # a row a run: run_id, method, line, optimizer, lr, seed, tail_loss
    looks: pd.DataFrame  # a row a layer and look: run_id, step, layer, kind, depth, numbers and spectra
    steps: pd.DataFrame  # lines of metrics.jsonl

    @property
    def optimizers(self) -> list[str]:
        return sorted(self.runs["optimizer"].unique())

    def lines(self, optimizer: str) -> list[tuple[str, str]]:
        """(line, method) of an optimizer's runs, in the order of the methods' papers."""
        chosen = self.runs[self.runs["optimizer"] == optimizer]
        pairs = chosen[["line", "method"]].drop_duplicates()
        return sorted(pairs.itertuples(index=False, name=None), key=lambda pair: (method_order(pair[1]), pair[0]))

    @cached_property
    def palette(self) -> Palette:
        return Palette(self.runs["method"])

    def of(self, optimizer: str, line: str) -> list[str]:
        """Run ids of a line."""
        runs = self.runs
        return runs[(runs["optimizer"] == optimizer) & (runs["line"] == line)]["run_id"].tolist()


def load(folders: Folders) -> ProbedRuns:
    """Finished runs with probes; of several learning rates the one with the lowest mean final training loss.

    Raises Unavailable where no run has probes, Refused where the runs are of several settings (results/setting.py):
    optimizers have figures of their own, and rates are chosen among.
    """
    runs = load_runs(folders)
    runs = runs[(runs["status"] == "done") & runs["folder"].map(_probed).astype(bool)]
    if runs.empty:
        raise Unavailable(
            f"{folders}: no finished run has probes. Run with probe.every=N (force=true where it is done)."
        )
    _require_one_setting(folders, set(runs["run_id"]))
    runs = _best_rates(_named(runs))
    looks = pd.concat([_looks(run.run_id, Path(run.folder)) for run in runs.itertuples()], ignore_index=True)
    steps = load_steps(folders)
    return ProbedRuns(runs, looks, steps[steps["run_id"].isin(runs["run_id"])])


def _require_one_setting(folders: Folders, ids: set[str]) -> None:
    probed = [run for run in load_as_tables_do(folders)[0] if run.id in ids]
    facts = [
        {key: value for key, value in run.column_facts.items() if key not in ("train.optimizer", "tuning")}
        for run in probed
    ]
    if lines := setting.differences(probed, facts):
        raise Refused(
            f"these runs must not share a figure: {'; '.join(lines)}. Give a folder of one setting with --runs."
        )


def _probed(folder: str) -> bool:
    return (Path(folder) / "probes").is_dir()


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds `line`: the method, and what else sets its runs apart from others of the method (its defaults unsaid)."""
    table = pd.DataFrame(
        {
            "run_id": runs["run_id"], "folder": runs["folder"], "method": runs["method"], "seed": runs["seed"],
            "optimizer": runs["config.train.optimizer"], "lr": runs["lr"], "tail_loss": runs["losses.tail_mean"],
        }
    )  # fmt: skip
    names = [method_title(method) for method in runs["method"]]
    for key in VARIANT_KEYS:
        if key not in runs:
            continue
        varies = runs.groupby("method")[key].transform(lambda column: column.nunique(dropna=True) > 1)
        short = key.rsplit(".", 1)[-1]
        defaults = [_default(method, short) for method in runs["method"]]
        varies &= runs[key].ne(pd.Series(defaults, index=runs.index))
        texts = [f", {short} {value:g}" if isinstance(value, int | float) else f", {value}" for value in runs[key]]
        names = [name + (text if vary else "") for name, text, vary in zip(names, texts, varies, strict=True)]
    return table.assign(line=names)


def _default(method: str, key: str) -> Any:
    """A method's default of a key; None where the method is not known here."""
    try:
        return getattr(lookup(method)[1], key, None)
    except KeyError:
        return None


def _best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    means = runs.groupby(["optimizer", "line", "lr"])["tail_loss"].mean().reset_index()
    best = means.loc[means.groupby(["optimizer", "line"])["tail_loss"].idxmin(), ["optimizer", "line", "lr"]]
    return runs.merge(best, on=["optimizer", "line", "lr"]).reset_index(drop=True)


def _looks(run_id: str, folder: Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "probes").glob("*.jsonl.zst")):
        step = int(path.name.split(".")[0])
        rows += [
            {"run_id": run_id, "step": step, "kind": kind_of(row["layer"]), "depth": depth_of(row["layer"]), **row}
            for row in samples.read_looks(path)
        ]
    return pd.DataFrame(rows)


def kind_of(layer: str) -> str:
    """`q_proj` for model.layers.3.self_attn.q_proj."""
    return layer.rsplit(".", 1)[-1]


def depth_of(layer: str) -> int:
    """3 for model.layers.3.self_attn.q_proj; -1 where the name has no number."""
    numbers = [int(part) for part in layer.split(".") if part.isdigit()]
    return numbers[0] if numbers else -1
