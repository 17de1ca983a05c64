"""Judging claims by the records: one finding per context, then a joint answer."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sdsbench.results import setting
from sdsbench.results.claims.admissible import depends_on_truncation, reasons
from sdsbench.results.claims.claim import Claim
from sdsbench.results.claims.claim_files import PAPERS
from sdsbench.results.claims.decide import LEVEL, Answer, answer_at, joint_answer, needed_to_decide
from sdsbench.results.statistics.contrasts import Comparison, concluded
from sdsbench.results.statistics.intervals import t_interval
from sdsbench.results.statistics.pooled_effect import PooledEffect, pooled_effect
from sdsbench.results.statistics.variances import Needed, Variances
from sdsbench.results.tables import run_values
from sdsbench.results.tables.cells import TableCell, mean_cell
from sdsbench.results.tables.contrast import MIN_SEEDS, NO_VARIANCE, Contrast, contrast
from sdsbench.results.tables.definition import Column, column_format
from sdsbench.results.tables.loaded_runs import Run

NAN = float("nan")
NOTHING_NEEDED = Needed()
Source = Literal["runs", "shipped theory bench", "given table"]


@dataclass(frozen=True)
class ContextFinding:
    """The evidence of one context (a model, task, rank ...) on a claim."""

    context: str
    paper_setting: bool
    answer: Answer
    comparison: Comparison  # ours - theirs, or the mean of ours if there is only one side
    runs: tuple[str, ...]
    note: str = ""
    needed: Needed = NOTHING_NEEDED
    pairs: int = 1  # for a claim about the spread: number of method pairs from which best and worst were selected
    counted: bool = False  # the answer follows from a count of parameters, not from the interval
    untested: str = ""  # why the difference could not be tested; the answer is then undecided unless it was counted
    source: Source = "runs"


@dataclass(frozen=True)
class Verdict:
    """`answer` for runs in the paper's setting, `elsewhere` for others (None: no runs); each with a pooled effect."""

    claim: Claim
    answer: Answer
    elsewhere: Answer | None
    findings: tuple[ContextFinding, ...]
    pooled: PooledEffect | None = None
    pooled_elsewhere: PooledEffect | None = None

    @property
    def source(self) -> Source:
        """Whether the evidence is the user's own runs or a table shipped with the project, which is no reproduction."""
        return self.findings[0].source if self.findings else "runs"

    def plain(self) -> dict[str, Any]:
        """The verdict as plain values for JSON."""
        findings = [_finite(asdict(finding)) for finding in self.findings]
        effects = {"pooled": self.pooled, "pooled_elsewhere": self.pooled_elsewhere}
        return {
            **{"id": self.claim.id, "paper": self.claim.paper, "sentence": self.claim.sentence},
            **{"answer": self.answer, "elsewhere": self.elsewhere, "evidence": self.source},
            **{name: effect and _finite(asdict(effect)) for name, effect in effects.items()},
            "findings": findings,
        }


def judge(claim: Claim, runs: Sequence[Run], results: Path) -> Verdict:
    """The verdict on one claim; `results` is the folder of the tables that claims with `test: file` read."""
    if claim.test == "file":
        findings = _from_file(claim, results)
        answers = [finding.answer for finding in findings]
        answer: Answer = "contradicted" if "contradicted" in answers else "undecided"
        return Verdict(claim, "reproduced" if set(answers) == {"reproduced"} else answer, None, tuple(findings))
    findings = _from_runs(claim, runs)
    here = [finding for finding in findings if finding.paper_setting]
    there = [finding for finding in findings if not finding.paper_setting]
    return Verdict(
        claim,
        _joint(claim, here),
        _joint(claim, there) if there else None,
        tuple(findings),
        pooled_effect([finding.comparison for finding in here if finding.answer != "inadmissible"]),
        pooled_effect([finding.comparison for finding in there if finding.answer != "inadmissible"]),
    )


def _joint(claim: Claim, findings: Sequence[ContextFinding]) -> Answer:
    """The joint answer of the contexts with admissible evidence; inadmissible if there is none."""
    usable = [finding for finding in findings if finding.answer != "inadmissible"]
    if findings and not usable:
        return "inadmissible"
    comparisons = [finding.comparison for finding in usable]
    answer = joint_answer(claim.test, claim.margin, comparisons, [finding.pairs for finding in usable])
    # Parameters are counted, not sampled: a contradicting count decides without any interval.
    counted = [finding.answer for finding in usable if finding.counted]
    if "contradicted" in counted:
        return "contradicted"
    return "undecided" if counted else answer


def _from_runs(claim: Claim, runs: Sequence[Run]) -> list[ContextFinding]:
    done = [run for run in runs if run.record.status == "done" and not setting.tuning_run(run.record)]
    contexts: dict[tuple[Any, ...], list[Run]] = {}
    for run in done:
        if _fits(run, claim.ours) or (claim.theirs and _fits(run, claim.theirs)):
            key = tuple(run.flat.get(key) for key in claim.same)
            contexts.setdefault(key, []).append(_with_probes(claim, run))
    findings = []
    for key in sorted(contexts, key=str):
        names = ", ".join(f"{name} {value}" for name, value in zip(claim.same, key, strict=True) if value is not None)
        for column in _columns(claim, contexts[key]):
            label = f"{names}: {column.evaluation}" if column.evaluation else names
            findings += _of_settings(claim, column, contexts[key], label)
    return findings


def _of_settings(claim: Claim, column: Column, members: Sequence[Run], label: str) -> list[ContextFinding]:
    """One finding per setting with runs of both sides; if there is none, one finding that lists how they differ."""
    groups: list[tuple[dict[str, Any], list[Run]]] = []
    having = [run for run in members if run_values.value(run, column) is not None]
    for run in sorted(having, key=lambda run: (-len(run.column_facts), run.id)):
        facts = setting.compared(run, run_values.score_of(run, column))
        for known, group in groups:
            if setting.agree(facts, known):
                known |= facts
                group.append(run)
                break
        else:
            groups.append((dict(facts), [run]))
    meeting = [(facts, group, sides) for facts, group in groups if (sides := _sides(claim, column, group))]
    if meeting:
        apart = setting.differing_facts([facts for facts, _, _ in meeting])
        words = ["".join(f", {key} {text}" for key, text in unlike.items()) for unlike in apart]
        return [
            _one(claim, column, group, *sides, label + extra)
            for (_, group, sides), extra in zip(meeting, words, strict=True)
        ]
    sides = _sides(claim, column, having)
    if sides is None:
        return []
    unlike = setting.differences(having, [setting.compared(run, run_values.score_of(run, column)) for run in having])
    note = "unequal settings: " + "; ".join(unlike)
    ids = tuple(sorted(run.id for run in having))
    nothing = Comparison("none", NAN, NAN, NAN, NAN, 0, 0)
    return [ContextFinding(label, _in_the_papers_setting(claim, having), "inadmissible", nothing, ids, note)]


Sides = tuple[tuple[TableCell, ...], int]  # one or two cells, and the number of method pairs they were selected from


def _sides(claim: Claim, column: Column, members: Sequence[Run]) -> Sides | None:
    """The cells that a claim compares, from runs of one setting; None if a side has no run."""
    ours = _cell(column, [run for run in members if _fits(run, claim.ours)], "ours")
    if claim.test == "spread":
        cells = _by_method(column, [run for run in members if _fits(run, claim.ours)])
        return ((cells[-1], cells[0]), math.comb(len(cells), 2)) if len(cells) > 1 else None
    if claim.test == "below":
        return ((ours,), 1) if ours else None
    theirs = _cell(column, [run for run in members if _fits(run, claim.theirs)], "theirs")
    return ((ours, theirs), 1) if ours and theirs else None


def _one(
    claim: Claim, column: Column, members: Sequence[Run], cells: tuple[TableCell, ...], pairs: int, label: str
) -> ContextFinding:
    confidence = 1 - LEVEL / pairs  # Bonferroni: best and worst are selected from all pairs
    found = _alone(cells[0], confidence) if len(cells) == 1 else contrast(column, cells[0], cells[1], confidence)
    comparison = found.comparison
    refused = reasons(claim, column, cells)
    if not refused and (truncated := depends_on_truncation(claim, column, cells, comparison)):
        refused = [truncated]
    note = ""
    if claim.test == "spread":
        note = (
            f"{cells[0].row} against {cells[1].row}, the extremes of {pairs} pairs: {100 * confidence:.1f} % interval"
        )
    answer: Answer = answer_at(claim.test, comparison, claim.margin, confidence)
    counted: Answer | None = None
    if claim.fewer_parameters is not None:
        counted, note = _parameters(claim.fewer_parameters, cells)
        answer = counted or answer
    return ContextFinding(
        label,
        _in_the_papers_setting(claim, members),
        "inadmissible" if refused else answer,
        comparison,
        tuple(sorted({run.id for cell in cells for run in cell.runs})),
        "; ".join((*refused, *filter(None, [note]))),
        needed_to_decide(claim.test, comparison, claim.margin, confidence)
        if answer == "undecided" and not refused
        else NOTHING_NEEDED,
        pairs,
        counted is not None,
        found.untested,
    )


def _alone(cell: TableCell, confidence: float) -> Contrast:
    """One side alone: its mean with the t-interval over seeds."""
    interval = t_interval(list(cell.by_seed.values()))
    if interval.n < MIN_SEEDS:
        nothing = Comparison("none", interval.mean, NAN, NAN, NAN, interval.n, 0)
        return Contrast(nothing, f"fewer than {MIN_SEEDS} seeds")
    variances = Variances(interval.deviation**2 / interval.n, interval.n - 1)
    comparison = concluded("t over seeds", interval.mean, variances, interval.n, 0, confidence)
    return Contrast(comparison, "" if variances.testable else NO_VARIANCE)


def _from_file(claim: Claim, results: Path) -> list[ContextFinding]:
    path = results / claim.file
    if not path.is_file():
        return []
    source: Source = "shipped theory bench" if results.resolve() == PAPERS.parent.resolve() else "given table"
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
                comparison = Comparison(claim.file, value, low, high, NAN, 0, 0)
                findings.append(ContextFinding(label, True, answer, comparison, (), source=source))
    return findings


def _columns(claim: Claim, runs: Sequence[Run]) -> list[Column]:
    """One column per evaluation with its headline scorer, or the single column of another measure.

    Tests and margins of scores are about points of 100 of which more is better, so a loss or a perplexity is left out.
    """
    if claim.measure != "score":
        kind: Any = "share" if claim.measure == "init_share" else "number"
        return [Column("claim", "", {}, measure=claim.measure, format=kind)]
    found = {(s.evaluation, s.scorer): s for run in runs for s in run.record.scores if s.headline
             and not s.retention and s.stage == "trained" and claim.evaluation in ("", s.evaluation)
             and (s.unit, s.better) == ("share", "higher")}  # fmt: skip
    return [
        Column("claim", "", {}, evaluation=evaluation, scorer=scorer, **column_format(found[evaluation, scorer]))
        for evaluation, scorer in sorted(found)
    ]


def _cell(column: Column, runs: Sequence[Run], name: str) -> TableCell | None:
    having = [(run, number) for run in runs if (number := run_values.value(run, column)) is not None]
    return mean_cell(TableCell(name, "claim", "missing"), column, having) if having else None


def _by_method(column: Column, runs: Sequence[Run]) -> list[TableCell]:
    """One cell per method, worst first."""
    methods = sorted({run.record.method for run in runs})
    cells = [cell for m in methods if (cell := _cell(column, [run for run in runs if run.record.method == m], m))]
    return sorted(cells, key=lambda cell: cell.ours.mean if cell.ours else 0.0)


def _parameters(fewer: float, cells: tuple[TableCell, ...]) -> tuple[Answer | None, str]:
    """The answer forced by the parameter counts (None: they agree with the claim), and a text with the counts."""
    ours, theirs = (cell.runs[0].record.parameters for cell in cells)
    if ours is None or theirs is None:
        return "undecided", "parameter counts missing"
    ratio = theirs.adapter / ours.adapter
    return ("contradicted" if ratio < fewer else None), f"{ratio:.1f} times fewer parameters"


def _in_the_papers_setting(claim: Claim, members: Sequence[Run]) -> bool:
    return _fits(members[0], claim.setting)


def _fits(run: Run, where: dict[str, Any]) -> bool:
    return run.fits({key: tuple(value) if isinstance(value, list) else value for key, value in where.items()})


def _with_probes(claim: Claim, run: Run) -> Run:
    """The run with one more column: the mean of the probed quantity over all probe lines of its log."""
    if not claim.measure.startswith("probe."):
        return run
    key = claim.measure.removeprefix("probe.")
    values = [line[key] for line in run.steps("probe") if isinstance(line.get(key), int | float)]
    return replace(run, flat={**run.flat, claim.measure: float(np.mean(values))}) if values else run


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinities, which JSON cannot represent."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
