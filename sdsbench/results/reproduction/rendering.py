"""Reproduction results as Markdown, JSON and one HTML page with both runs side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdsbench.core.files import write_atomic
from sdsbench.core.texts import counted, number_of
from sdsbench.results import escape
from sdsbench.results.report.pages import template, write_style
from sdsbench.results.reproduction.differences import ReproducedRun

SHOWN = 12  # maximum number of changed answers listed per run


def write(folder: Path, name: str, results: Sequence[ReproducedRun]) -> Path:
    """Write reproduction.json, reproduction.md, index.html and style.css to `folder`; return the page's path."""
    page = template("reproduction.html").render(
        title=f"{name} reproduced", root="", counts=counts(results), results=results, lines=lines, shown=SHOWN
    )
    plain = [_plain(result) for result in results]
    write_atomic(folder / "reproduction.json", json.dumps(plain, indent=1, allow_nan=False) + "\n")
    write_atomic(folder / "reproduction.md", markdown(name, results))
    write_style(folder)
    write_atomic(folder / "index.html", page)
    return folder / "index.html"


def counts(results: Sequence[ReproducedRun]) -> str:
    """A summary such as `2 runs: 1 bitwise the same, 1 within the spread`."""
    found = Counter(result.answer for result in results)
    return f"{number_of(len(results), 'run')}: {counted(found)}"


def markdown(name: str, results: Sequence[ReproducedRun]) -> str:
    texts = [f"**{escape.markdown(name)} reproduced**", "", counts(results), ""]
    for result in results:
        record = result.theirs.record
        what = escape.markdown(f"{record.method}, {record.task}")
        texts.append(f"- {result.run_id} ({what}, seed {record.seed}): {result.answer}")
        texts += [f"  - {escape.markdown(line)}" for line in lines(result)]
    return "\n".join(texts) + "\n"


def lines(result: ReproducedRun) -> list[str]:
    """All details of one run's result, one line each."""
    if result.ours is None:
        return [result.reason]
    found = [str(difference) for difference in result.differences]
    if result.loss is not None:
        found.append(f"largest difference of a step's loss: {result.loss:.3g}")
    if result.questions:
        found.append(
            f"{len(result.other_verdicts)} of {result.questions} answers have another verdict, {result.other_words} "
            "another wording"
        )
    if result.made_otherwise:
        found.append(f"made otherwise: {'; '.join(result.made_otherwise)}")
    elif result.answer != "bitwise the same":
        found.append("nothing that is recorded differs between the two: not even code, packages, device or data")
    return found


def _plain(result: ReproducedRun) -> dict[str, Any]:
    return {
        "run": result.run_id,
        "answer": result.answer,
        "reason": result.reason,
        "scores": [
            {key: value if value == value else None for key, value in vars(difference).items()}
            for difference in result.differences
        ],
        "largest_loss_difference": result.loss,
        "questions": result.questions,
        "other_verdicts": [vars(question) for question in result.other_verdicts],
        "other_words": result.other_words,
        "made_otherwise": list(result.made_otherwise),
    }
