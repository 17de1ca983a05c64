"""Verdicts as text and as Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from sdsbench.core.texts import counted, some_of
from sdsbench.results import escape
from sdsbench.results.claims.claim import Claim
from sdsbench.results.claims.verdict import ContextFinding, Verdict
from sdsbench.results.statistics.pooled_effect import PooledEffect

SHOWN = 3
"""A finding's text lists at most this many runs; `sdsbench verdict --format json` lists all."""


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Markdown: a table of the claims, then every context with its numbers and runs."""
    lines = ["| claim | paper | in the paper's setting | elsewhere |", "| --- | --- | --- | --- |"]
    for v in verdicts:
        cells = (v.claim.sentence, v.claim.paper, paper_setting_answer(v), other_settings_answer(v))
        lines.append(f"| {' | '.join(map(escape.markdown, cells))} |")
    for v in verdicts:
        if v.findings:
            lines += [
                "",
                f"**{escape.markdown(v.claim.sentence)}** (`{v.claim.id}`, test: {v.claim.test}, {_limits(v.claim)})",
                "",
            ]
            lines += [f"- {escape.markdown(line)}" for line in (*joint_texts(v), *map(finding_text, v.findings))]
    return "\n".join(lines) + "\n"


def paper_setting_answer(verdict: Verdict) -> str:
    """The answer in the paper's setting; says so if it comes from a shipped table or if there are no runs."""
    if verdict.source != "runs":
        return f"no runs; {verdict.source}: {verdict.answer}"
    findings = [finding for finding in verdict.findings if finding.paper_setting]
    return _counted(verdict.answer, findings) if findings else "undecided (no runs)"


def other_settings_answer(verdict: Verdict) -> str:
    """The answer in settings other than the paper's."""
    if verdict.elsewhere is None:
        return "no runs"
    return _counted(verdict.elsewhere, [finding for finding in verdict.findings if not finding.paper_setting])


def joint_texts(verdict: Verdict) -> list[str]:
    """The joint answers over all contexts, with pooled effect and heterogeneity."""
    lines = []
    for name, answer, effect, where in (
        ("paper's setting", verdict.answer, verdict.pooled, True),
        ("elsewhere", verdict.elsewhere, verdict.pooled_elsewhere, False),
    ):
        findings = [f for f in verdict.findings if f.paper_setting == where and f.answer != "inadmissible"]
        if len(findings) > 1 and verdict.source == "runs":
            pooled = f"; pooled effect {_effect(effect)}" if effect else ""
            lines.append(
                f"{answer} together ({name}; {len(findings)} contexts; reproduced if each is at 95 %, contradicted if "
                f"one is at a level divided by their number){pooled}"
            )
    return lines


def finding_text(finding: ContextFinding) -> str:
    """One line on a finding: context, answer, difference with its interval, and runs."""
    where = "paper's setting" if finding.paper_setting else "elsewhere"
    if finding.source != "runs":
        where = f"{finding.source}, no runs of yours"
    c = finding.comparison
    text = f"{finding.answer} ({where}; {finding.context}): "
    runs = f"; runs {some_of(finding.runs, SHOWN)}" if finding.runs else ""
    if math.isnan(c.difference):
        return text + finding.note + runs
    interval = "" if math.isnan(c.low) else f" [{c.low:.3g}, {c.high:.3g}]"
    text += f"{c.difference:+.3g}{interval}"
    text += f", {c.seeds} seeds, {c.test}" if c.seeds else f", {c.test}"
    if finding.note:
        text += f"; {finding.note}"
    if finding.answer == "undecided":
        text += f"; not tested: {finding.untested}" if finding.untested else f"; {_needed(finding)}"
    return text + runs


def _needed(finding: ContextFinding) -> str:
    if finding.needed.seeds is not None:
        further = max(finding.needed.seeds - finding.comparison.seeds, 1)
        return f"about {further} more seeds a side would decide"
    if finding.needed.questions is not None:
        return f"more seeds would not decide: at least {finding.needed.questions} questions are needed"
    return "no sensible number of seeds would decide"


def _counted(answer: str, findings: Sequence[ContextFinding]) -> str:
    """The joint answer, and how many contexts say what where there are several."""
    counts = Counter(sorted(finding.answer for finding in findings))
    return answer if len(findings) == 1 else f"{answer} ({counted(counts)})"


def _effect(effect: PooledEffect) -> str:
    return (
        f"{effect.mean:+.3g} [{effect.low:.3g}, {effect.high:.3g}], between contexts ± {effect.between:.3g} "
        f"({100 * effect.share:.0f} % of the variance)"
    )


def _limits(claim: Claim) -> str:
    """The limits that the claim's interval is compared with."""
    if claim.test != "file":
        return f"margin {claim.margin:g}"
    low, high = ("unbounded" if bound is None else f"{bound:g}" for bound in claim.bounds)
    return f"bounds {low} to {high}"
