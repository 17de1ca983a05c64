"""The page of one run: configuration, tuning, scores, and answers with the graders' verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdsbench.core.record import STAGES
from sdsbench.core.samples import holds_answer
from sdsbench.results.frames import evaluations_with_samples
from sdsbench.results.tables.footer import TIES, rules_of
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.run_values import cores_of_others
from sdsbench.results.tables.titles import method_title, model_title, task_title

ANSWERS = 20
"""Maximum number of answers per evaluation on the page; the run folder has all of them."""


@dataclass(frozen=True)
class ShownAnswers:
    """The first answers of a run to one evaluation, each with its graders' verdicts."""

    title: str
    count: int
    rows: tuple[dict[str, Any], ...]


def run_page(run: Run) -> dict[str, Any]:
    """The variables of the template run.html."""
    record = run.record
    settings = [(key.removeprefix("config."), value) for key, value in run.flat.items() if key.startswith("config.")]
    inert = set(record.inert)
    title = f"{method_title(record.method, record.rank)}, {model_title(record.model)}, {task_title(record.task)}"
    return {
        "title": f"{title}, seed {record.seed}",
        "root": "../",
        "record": record,
        "facts": _facts(run),
        "tuning": _tuning(run),
        "answers": list(_answers(run)),
        "settings": [(key, value, key in inert) for key, value in settings],
        "text": json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True),
    }


def _facts(run: Run) -> list[tuple[str, Any]]:
    record = run.record
    names = ("run_id", "status", "model", "method", "rank", "alpha", "task", "train_set", "protocol", "seed", "lr")
    facts: list[tuple[str, Any]] = [(name, getattr(record, name)) for name in names]
    if record.ended_by is not None:
        facts.append(("failure", f"{record.ended_by.type}: {record.ended_by.message}"))
    for part in ("losses", "tokens", "seconds", "memory", "parameters"):
        value = getattr(record, part)
        if value is not None:
            numbers = value.model_dump().items()
            facts.append((part, ", ".join(f"{key} {_number(number)}" for key, number in numbers if number is not None)))
    if record.provenance is not None:
        p = record.provenance
        facts += [("code", p.code_text())]
        facts += [("device", f"{p.device}, {p.dtype}, {p.threads} thread{'s' * (p.threads != 1)}")]
        others = round(cores_of_others(run), 1)
        facts += [("other work", f"{others} cores on average")] if others else []
        facts += [("data", f"{d.dataset} {d.split}: {d.source}, {d.rows} rows, {d.fingerprint[:16]}") for d in p.data]
    return [(name, value) for name, value in facts if value is not None]


def _tuning(run: Run) -> dict[str, Any] | None:
    """The tuning results behind the run's chosen value, one entry per candidate value; None if it was not tuned."""
    tuning = run.record.tuning
    if tuning is None:
        return None
    losses = tuning.losses or [None] * len(tuning.grid)
    like = next((score for score in run.record.scores if score.headline and not score.retention), None)
    scores = ["failed" if s is None else like.shown(s) if like else f"{s:.4g}" for s in tuning.scores]
    tie = f", {TIES[tuning.tie_broken_by]}" if tuning.tie_broken_by else ""
    return {
        "key": tuning.key,
        "rule": f"{rules_of([tuning])[0]}{tie}",
        "interior": tuning.interior,
        "rows": [
            (value, score, loss, value == tuning.chosen)
            for value, score, loss in zip(tuning.grid, scores, losses, strict=True)
        ],
    }


def _answers(run: Run) -> Iterator[ShownAnswers]:
    for stage in STAGES:
        for name in evaluations_with_samples(run.folder, stage):
            found = run.answers(name, stage)
            rows = [
                {
                    "id": sample.get("id", sample["index"]),
                    "prompt": str(sample.get("prompt", "")),
                    "target": str(sample.get("target", "")),
                    "response": str(sample.get("response", "")),
                    "verdicts": [(scorer, _verdict(value)) for scorer, value in sample.get("scores", {}).items()],
                }
                for sample in found[:ANSWERS]
                if holds_answer(sample)
            ]
            if rows:  # if the file is unreadable, the report lists it as damaged
                yield ShownAnswers(f"{task_title(name)} ({stage.replace('_', ' ')})", len(found), tuple(rows))


def _verdict(value: Any) -> str:
    words = {1: "right", 0: "wrong", None: "undecided"}
    return words.get(value, _number(value))


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
