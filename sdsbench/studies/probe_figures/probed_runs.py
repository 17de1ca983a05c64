"""Runs with probes as frames: one row per layer and probed step, with the label of the run's line in figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from sdsbench.core import samples
from sdsbench.core.errors import DamagedFile, Refused, Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.core.reading import files_in
from sdsbench.results import setting
from sdsbench.results.bundles.opened import shown
from sdsbench.results.figure_style import Palette
from sdsbench.results.tables.grid import by_method, variant_of, varying
from sdsbench.results.tables.loaded_runs import Run, problems_of
from sdsbench.results.tables.titles import method_order, method_title


@dataclass(frozen=True)
class ProbedRuns:
    """The data of all figures; a line is one method and variant."""

    runs: pd.DataFrame  # one row per run: run_id, method, line, optimizer, lr, seed, tail_loss
    probes: pd.DataFrame  # one row per layer and probed step: run_id, step, layer, kind, depth, numbers and spectra
    steps: pd.DataFrame  # lines of metrics.jsonl of the kinds train and method

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


def probed_runs(runs: Sequence[Run]) -> ProbedRuns:
    """Finished runs with probes; per line only the learning rate with the lowest mean final training loss.

    Runs that only served tuning are drawn where there are no others: they have other seeds and fewer training rows.
    Probes that cannot be read are left out and named in `Run.problems`. The last result is kept, since all figures of
    one command are drawn from the same runs. Raises Unavailable if no run has probes, Refused if the runs differ in
    setting (results/setting.py) in more than optimizer, tuning and learning rate.
    """
    return _probed_runs(tuple(runs))


@lru_cache(maxsize=1)
def _probed_runs(runs: tuple[Run, ...]) -> ProbedRuns:
    members = [run for run in runs if run.record.status == "done" and _drawable(run) and _probed(run)]
    if not members:
        raise Unavailable("no finished run has probes. Run with probe.every=N (force=true where it is done).")
    members = [run for run in members if not setting.tuning_run(run.record)] or members
    _require_one_setting(members)
    frame = _best_rates(_named(members))
    chosen = {*frame["run_id"]}
    members = [run for run in members if run.id in chosen]
    probes = pd.DataFrame([row for run in members for row in _probe_rows(run)])
    if probes.empty:
        raise Unavailable("no probe can be read.\n" + "\n".join(problems_of(members).values()))
    frame = frame[frame["run_id"].isin(probes["run_id"])].reset_index(drop=True)
    readable = {*frame["run_id"]}
    steps = [
        {"run_id": run.id, **line}
        for run in members
        if run.id in readable
        for kind in ("train", "method")
        for line in run.steps(kind)
    ]
    return ProbedRuns(frame, probes, pd.DataFrame(steps, columns=None if steps else ["run_id", "kind", "step"]))


_LINES_DIFFER_IN = ("train.optimizer", "tuning", "train.lr")


def _require_one_setting(probed: Sequence[Run]) -> None:
    facts = [
        {key: value for key, value in setting.compared(run).items() if key not in _LINES_DIFFER_IN} for run in probed
    ]
    if lines := setting.differences(probed, facts):
        raise Refused(
            f"these runs must not share a figure: {'; '.join(lines)}. Give a folder of one setting with --runs."
        )


def _drawable(run: Run) -> bool:
    """Whether a record has the values that label and select a line: optimizer and losses."""
    return isinstance(run.flat.get("config.train.optimizer"), str) and run.record.losses is not None


def _probed(run: Run) -> bool:
    return (run.folder / "probes").is_dir()


def _named(members: Sequence[Run]) -> pd.DataFrame:
    """The columns that figures read, and `line`: the title of these runs' table row without the learning rate."""
    names: dict[str, str] = {}
    for alike in grouped(members, lambda run: (run.flat["config.train.optimizer"], *by_method(run))).values():
        keys = [key for key in varying(alike) if key != "config.train.lr"]
        names |= {run.id: method_title(*by_method(run), variant_of(run, keys)) for run in alike}
    return pd.DataFrame(
        {
            "run_id": run.id, "method": run.record.method, "seed": run.record.seed,
            "optimizer": run.flat["config.train.optimizer"], "lr": run.record.lr,
            "tail_loss": run.flat["losses.tail_mean"], "line": names[run.id],
        }
        for run in members
    )  # fmt: skip


def _best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    means = runs.groupby(["optimizer", "line", "lr"])["tail_loss"].mean().reset_index()
    best = means.loc[means.groupby(["optimizer", "line"])["tail_loss"].idxmin(), ["optimizer", "line", "lr"]]
    return runs.merge(best, on=["optimizer", "line", "lr"]).reset_index(drop=True)


def _probe_rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row a layer and probed step; files that cannot be read are named in `run.problems`."""
    try:
        paths = files_in(run.folder / "probes", ".jsonl.zst")
    except DamagedFile as error:
        run.problems["probes"] = shown(str(error))
        return
    for path in paths:
        step = path.name.split(".")[0]
        if not (step.isdecimal() and len(step) < 12):
            continue
        try:
            rows = samples.read_probes(path)
        except DamagedFile as error:
            run.problems[f"probes/{path.name}"] = shown(str(error))
            continue
        for row in rows:
            where = {"kind": kind_of(row["layer"]), "depth": depth_of(row["layer"])}
            yield {"run_id": run.id, "step": int(step), **where, **row, "weakest_gain": _weakest_gain(row)}


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
