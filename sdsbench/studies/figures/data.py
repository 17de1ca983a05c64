"""Runs with probes as frames: one row per layer and probed step, with the label of the run's line in figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sdsbench.core import samples
from sdsbench.core.errors import DamagedFile, Refused, Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.core.reading import files_in
from sdsbench.results import setting
from sdsbench.results.bundles.opened import shown
from sdsbench.results.figure_style import Palette
from sdsbench.results.frames import Folders, load_runs, load_steps
from sdsbench.results.tables.definitions.grid import by_method, variant_of, varying
from sdsbench.results.tables.runs import Run
from sdsbench.results.tables.runs import load as load_as_tables_do
from sdsbench.results.tables.titles import method_order, method_title


@dataclass(frozen=True)
class ProbedRuns:
    """The data of all figures; a line is one method and variant."""

    runs: pd.DataFrame  # one row per run: run_id, method, line, optimizer, lr, seed, tail_loss
    probes: pd.DataFrame  # one row per layer and probed step: run_id, step, layer, kind, depth, numbers and spectra
    steps: pd.DataFrame  # lines of metrics.jsonl
    damaged: Mapping[str, str]  # unreadable file -> reason

    @property
    def optimizers(self) -> list[str]:
        return sorted(self.runs["optimizer"].unique())

    def lines(self, optimizer: str) -> list[tuple[str, str]]:
        """(line, method) of an optimizer's runs, ordered by the date of the method's paper."""
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
    """Finished runs with probes; per line only the learning rate with the lowest mean final training loss.

    Raises Unavailable if no run has probes, Refused if the runs differ in setting (results/setting.py) in more than
    optimizer and tuning.
    """
    runs = load_runs(folders)
    damaged = runs.attrs["damaged"]
    members = [run for run in load_as_tables_do(folders)[0] if _drawable(run)]
    usable = runs["run_id"].isin([run.id for run in members])
    runs = runs[usable & (runs["status"] == "done") & runs["folder"].map(_probed).astype(bool)]
    if runs.empty:
        places = [folders] if isinstance(folders, str | Path) else folders
        raise Unavailable(
            f"{', '.join(map(str, places))}: no finished run has probes. Run with probe.every=N (force=true where it "
            "is done)."
        )
    ids = set(runs["run_id"])
    members = [run for run in members if run.id in ids]
    _require_one_setting(members)
    runs = _best_rates(_named(runs, members))
    steps = load_steps(folders)
    damaged = {**damaged, **steps.attrs["damaged"]}
    probes = pd.DataFrame(
        [row for run in runs.itertuples() for row in _probe_rows(run.run_id, Path(run.folder), damaged)]
    )
    if probes.empty:
        raise Unavailable("no probe can be read.\n" + "\n".join(damaged.values()))
    runs = runs[runs["run_id"].isin(probes["run_id"])].reset_index(drop=True)
    return ProbedRuns(runs, probes, steps[steps["run_id"].isin(runs["run_id"])], damaged)


def _require_one_setting(probed: Sequence[Run]) -> None:
    facts = [
        {key: value for key, value in run.column_facts.items() if key not in ("train.optimizer", "tuning")}
        for run in probed
    ]
    if lines := setting.differences(probed, facts):
        raise Refused(
            f"these runs must not share a figure: {'; '.join(lines)}. Give a folder of one setting with --runs."
        )


def _drawable(run: Run) -> bool:
    """Whether a record has the values that label and select a line: optimizer and losses."""
    return isinstance(run.flat.get("config.train.optimizer"), str) and run.record.losses is not None


def _probed(folder: str) -> bool:
    return (Path(folder) / "probes").is_dir()


def _named(runs: pd.DataFrame, members: Sequence[Run]) -> pd.DataFrame:
    """The columns that figures read, and `line`: the title of these runs' table row without the learning rate."""
    names: dict[str, str] = {}
    for alike in grouped(members, lambda run: (run.flat["config.train.optimizer"], *by_method(run))).values():
        keys = [key for key in varying(alike) if key != "config.train.lr"]
        names |= {run.id: method_title(*by_method(run), variant_of(run, keys)) for run in alike}
    return pd.DataFrame(
        {
            "run_id": runs["run_id"], "folder": runs["folder"], "method": runs["method"], "seed": runs["seed"],
            "optimizer": runs["config.train.optimizer"], "lr": runs["lr"], "tail_loss": runs["losses.tail_mean"],
            "line": runs["run_id"].map(names),
        }
    )  # fmt: skip


def _best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    means = runs.groupby(["optimizer", "line", "lr"])["tail_loss"].mean().reset_index()
    best = means.loc[means.groupby(["optimizer", "line"])["tail_loss"].idxmin(), ["optimizer", "line", "lr"]]
    return runs.merge(best, on=["optimizer", "line", "lr"]).reset_index(drop=True)


def _probe_rows(run_id: str, folder: Path, damaged: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A row a layer and look; looks that cannot be read are put into `damaged`."""
    try:
        paths = files_in(folder / "probes", ".jsonl.zst")
    except DamagedFile as error:
        damaged[str(folder / "probes")] = shown(str(error))
        return
    for path in paths:
        step = path.name.split(".")[0]
        if not (step.isdecimal() and len(step) < 12):
            continue
        try:
            rows = samples.read_probes(path)
        except DamagedFile as error:
            damaged[str(path)] = shown(str(error))
            continue
        for row in rows:
            where = {"kind": kind_of(row["layer"]), "depth": depth_of(row["layer"])}
            yield {"run_id": run_id, "step": int(step), **where, **row, "weakest_gain": _weakest_gain(row)}


def _weakest_gain(row: Mapping[str, Any]) -> float:
    """Gain of the gradient G along dW's weakest singular direction, relative to the strongest; nan if undefined."""
    match row.get("singular_gains"):
        case [int() | float() as first, *_, int() | float() as last] if first > 0:
            return last / first
    return math.nan


def kind_of(layer: str) -> str:
    """`q_proj` for model.layers.3.self_attn.q_proj."""
    return layer.rsplit(".", 1)[-1]


def depth_of(layer: str) -> int:
    """3 for model.layers.3.self_attn.q_proj; -1 where the name has no number."""
    numbers = [int(part) for part in layer.split(".") if part.isdigit()]
    return numbers[0] if numbers else -1
