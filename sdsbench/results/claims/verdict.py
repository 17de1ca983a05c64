"""Every claim against the records: contexts, intervals, answers."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdsbench.results.claims.claim import Claim
from sdsbench.results.claims.decide import Answer, decide, more_seeds, together
from sdsbench.core import step_log as metrics
from sdsbench.results.statistics import t_interval
from sdsbench.results.tables import measures
from sdsbench.results.tables import cell_identity as identity
from sdsbench.results.tables.cells import SCALE, Cell
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.ranking import compare
from sdsbench.results.tables.runs import Run


@dataclass(frozen=True)
class Finding:
    """What one context (a model, a task, a rank ...) says about a claim."""

    context: str
    paper_setting: bool
    answer: Answer
    value: float  # ours - theirs, or ours alone
    low: float
    high: float
    seeds: int
    more_seeds: int | None
    method: str  # the test
    runs: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    answer: Answer  # in the paper's setting
    elsewhere: Answer | None  # in other settings, None: no runs there
    findings: tuple[Finding, ...]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        numbers = [{k: _finite(v) for k, v in asdict(finding).items()} for finding in self.findings]
        head = {"id": self.claim.id, "paper": self.claim.paper, "sentence": self.claim.sentence}
        return {**head, "answer": self.answer, "elsewhere": self.elsewhere, "findings": numbers}


def judge(claim: Claim, runs: Sequence[Run], results: Path) -> Verdict:
    """The verdict on one claim; `results` holds the tables that `test: file` reads."""
    findings = _from_file(claim, results) if claim.test == "file" else _from_runs(claim, runs)
    here = [finding.answer for finding in findings if finding.paper_setting]
    there = [finding.answer for finding in findings if not finding.paper_setting]
    return Verdict(claim, together(here), together(there) if there else None, tuple(findings))


def _from_runs(claim: Claim, runs: Sequence[Run]) -> list[Finding]:
    done = [_with_probes(claim, run) for run in runs if run.record.status == "done"]
    contexts: dict[tuple[Any, ...], list[Run]] = {}
    for run in done:
        if _fits(run, claim.ours) or (claim.theirs and _fits(run, claim.theirs)):
            contexts.setdefault(tuple(run.flat.get(key) for key in claim.same), []).append(run)
    findings = []
    for key in sorted(contexts, key=str):
        members = contexts[key]
        names = ", ".join(f"{name} {value}" for name, value in zip(claim.same, key, strict=True) if value is not None)
        for column in _columns(claim, members):
            label = f"{names}: {column.evaluation}" if column.evaluation else names
            finding = _one(claim, column, members, label)
            if finding is not None:
                findings.append(finding)
    return findings


def _one(claim: Claim, column: Column, members: Sequence[Run], label: str) -> Finding | None:
    setting = all(members[0].flat.get(key) in values for key, values in claim.setting.items())
    ours = _cell(column, [run for run in members if _fits(run, claim.ours)])
    confidence = 0.95
    if claim.test == "spread":
        cells = _by_method(column, [run for run in members if _fits(run, claim.ours)])
        pair = (cells[-1], cells[0]) if len(cells) > 1 else None
        confidence = 1 - 0.05 / max(1, math.comb(len(cells), 2))  # best and worst are chosen among all pairs
    elif claim.test == "below":
        pair = (ours, ours) if ours else None
    else:
        theirs = _cell(column, [run for run in members if _fits(run, claim.theirs)])
        pair = (ours, theirs) if ours and theirs else None
    if pair is None:
        return None
    first, second = pair
    ids = tuple(sorted({run.id for cell in pair for run in cell.runs}))
    mixed = _mixed(column, pair)
    if mixed:
        return Finding(label, setting, "undecided", math.nan, math.nan, math.nan, 0, None, "none", ids, mixed)
    if claim.test == "below":
        interval = t_interval(list(first.by_seed.values()))
        numbers = (interval.mean, interval.low, interval.high, interval.deviation, interval.n, "t over seeds")
    else:
        comparison = compare(column, first, second, confidence)
        if comparison is None:
            return Finding(
                label, setting, "undecided", math.nan, math.nan, math.nan, 0, None, "none", ids, "no common seed"
            )
        differences = [first.by_seed[seed] - second.by_seed[seed] for seed in first.by_seed if seed in second.by_seed]
        deviation = t_interval(differences).deviation
        seeds = comparison.seeds
        low, high = (comparison.low, comparison.high) if seeds > 1 else (math.nan, math.nan)
        numbers = (comparison.difference, low, high, deviation, seeds, comparison.test)
    mean, low, high, deviation, seeds, test = numbers
    answer = decide(claim.test, low, high, claim.margin)
    answer, note = _parameters(claim, answer, first, second)
    if claim.test == "spread":
        note = f"{first.row} against {second.row}, the extremes of {len(cells)}: {100 * confidence:.1f} % interval"
    needed = more_seeds(claim.test, mean, deviation, claim.margin, seeds) if answer == "undecided" else None
    return Finding(label, setting, answer, mean, low, high, seeds, needed, test, ids, note)


def _from_file(claim: Claim, results: Path) -> list[Finding]:
    path = results / claim.file
    if not path.is_file():
        return []
    findings = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if all(row.get(key) == value for key, value in claim.row.items()):
                value, low, high = (float(row[claim.columns[key]]) for key in ("value", "low", "high"))
                least, most = (b if b is not None else s * math.inf for b, s in zip(claim.bounds, (-1, 1), strict=True))
                answer: Answer = "reproduced" if least < low and high < most else "undecided"
                if high < least or low > most:
                    answer = "contradicted"
                label = ", ".join(f"{key} {text}" for key, text in row.items() if key not in claim.columns.values())
                findings.append(Finding(label, True, answer, value, low, high, 0, None, claim.file, ()))
    return findings


def _columns(claim: Claim, runs: Sequence[Run]) -> list[Column]:
    """One column an evaluation and its headline scorer, or the one of a measure."""
    if claim.measure != "score":
        kind: Any = "share" if claim.measure == "init_share" else "number"
        return [Column("claim", "", {}, measure=claim.measure, format=kind)]
    found = sorted({(s.evaluation, s.scorer) for run in runs for s in run.record.scores
                    if s.headline and s.stage == "trained" and claim.evaluation in ("", s.evaluation)})  # fmt: skip
    return [Column("claim", "", {}, evaluation=evaluation, scorer=scorer) for evaluation, scorer in found]


def _cell(column: Column, runs: Sequence[Run], name: str = "") -> Cell | None:
    tuned = [run for run in runs if run.record.tuning]
    scale = SCALE.get(column.format, 1.0)
    numbers = {run.id: (run, number) for run in tuned or runs if (number := measures.value(run, column)) is not None}
    if not numbers:
        return None
    by_seed = {run.record.seed: number * scale for run, number in numbers.values()}
    interval = t_interval([by_seed[seed] for seed in sorted(by_seed)])
    return Cell(name, "claim", "value", interval, by_seed, tuple(run for run, _ in numbers.values()))


def _by_method(column: Column, runs: Sequence[Run]) -> list[Cell]:
    """A cell a method, worst first."""
    methods = sorted({run.record.method for run in runs})
    cells = [cell for m in methods if (cell := _cell(column, [run for run in runs if run.record.method == m], m))]
    return sorted(cells, key=lambda cell: cell.ours.mean if cell.ours else 0.0)


def _mixed(column: Column, pair: tuple[Cell, Cell]) -> str:
    """Why runs of a side must not be averaged, or the sides not compared; empty where they may."""
    lines: list[str] = []
    for cell in pair:
        lines += identity.differences(cell.runs, [identity.averaged(run, column) for run in cell.runs])
        if len(cell.by_seed) < len(cell.runs):
            lines.append("a seed occurs twice")
    both = [*pair[0].runs, *pair[1].runs]
    lines += identity.differences(both, [identity.compared(run, column) for run in both])
    return "runs that must not be averaged: " + "; ".join(dict.fromkeys(lines)) if lines else ""


def _parameters(claim: Claim, answer: Answer, ours: Cell, theirs: Cell) -> tuple[Answer, str]:
    if claim.fewer_parameters is None:
        return answer, ""
    counts = [cell.runs[0].record.parameters for cell in (ours, theirs)]
    if counts[0] is None or counts[1] is None:
        return "undecided", "parameter counts missing"
    ratio = counts[1].adapter / counts[0].adapter
    note = f"{ratio:.1f} times fewer parameters"
    return ("contradicted" if ratio < claim.fewer_parameters else answer), note


def _fits(run: Run, where: dict[str, Any]) -> bool:
    flat = {**run.flat, "tuned": run.record.tuning is not None}
    return all(flat.get(key) in (value if isinstance(value, list) else [value]) for key, value in where.items())


def _with_probes(claim: Claim, run: Run) -> Run:
    """The run with the mean of the probed number as one more column."""
    if not claim.measure.startswith("probe."):
        return run
    key = claim.measure.removeprefix("probe.")
    lines = metrics.read(run.folder / "metrics.jsonl")
    values = [line[key] for line in lines if line["kind"] == "probe" and isinstance(line.get(key), int | float)]
    return Run(run.folder, run.record, {**run.flat, claim.measure: float(np.mean(values))}) if values else run


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
