"""Verdicts as text and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdsbench.results.claims.claim import Claim
from sdsbench.results.claims.verdict import Finding, Verdict


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A table of claims, then every context with its numbers and runs."""
    lines = ["| claim | paper | in the paper's setting | elsewhere |", "| --- | --- | --- | --- |"]
    for v in verdicts:
        lines.append(f"| {v.claim.sentence} | {v.claim.paper} | {here(v)} | {v.elsewhere or 'no runs'} |")
    for v in verdicts:
        if v.findings:
            lines += [
                "",
                f"**{v.claim.sentence}** (`{v.claim.id}`, test: {v.claim.test}, {_limits(v.claim)})",
                "",
            ]
            lines += [f"- {finding_text(finding)}" for finding in v.findings]
    return "\n".join(lines) + "\n"


def _limits(claim: Claim) -> str:
    """What an interval is held against."""
    if claim.test != "file":
        return f"margin {claim.margin:g}"
    low, high = ("unbounded" if bound is None else f"{bound:g}" for bound in claim.bounds)
    return f"bounds {low} to {high}"


def here(verdict: Verdict) -> str:
    """The answer in the paper's setting; without runs it is undecided for want of them."""
    if any(finding.paper_setting for finding in verdict.findings):
        return verdict.answer
    return "undecided (no runs)"


def finding_text(finding: Finding) -> str:
    where = "paper's setting" if finding.paper_setting else "elsewhere"
    text = f"{finding.answer} ({where}; {finding.context}): "
    if math.isnan(finding.value):
        return text + finding.note
    interval = "" if math.isnan(finding.low) else f" [{finding.low:.3g}, {finding.high:.3g}]"
    text += f"{finding.value:+.3g}{interval}"
    text += f", {finding.seeds} seeds, {finding.method}" if finding.seeds else f", {finding.method}"
    if finding.note:
        text += f"; {finding.note}"
    if finding.answer == "undecided":
        text += (
            f"; about {finding.more_seeds} more seeds would decide"
            if finding.more_seeds
            else "; no sensible number of seeds would decide"
        )
    return text + (f"; runs {' '.join(finding.runs)}" if finding.runs else "")
