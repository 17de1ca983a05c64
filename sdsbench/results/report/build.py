"""The whole report: index.html, a page a run, figures. The same records give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from sdsbench.core.files import write_atomic
from sdsbench.results.claims import texts
from sdsbench.results.claims.verdict import Verdict
from sdsbench.results.importers.external import ExternalRecord
from sdsbench.results.report import figures
from sdsbench.results.report.boards import Board, boards
from sdsbench.results.report.disagreement import Disagreement, disagreements
from sdsbench.results.report.style import save
from sdsbench.results.tables.render import html
from sdsbench.results.tables.runs import Run

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class View:
    """What the page shows of one board."""

    board: Board
    table: str
    figures: tuple[Picture, ...]
    disagreements: tuple[Disagreement, ...]


def build(
    folder: Path,
    runs: Sequence[Run],
    damaged: dict[str, str],
    verdicts: Sequence[Verdict] = (),
    external: Sequence[ExternalRecord] = (),
    title: str = "sdsbench report",
) -> Path:
    """Write the report into `folder` and return its index.html."""
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    views = [_view(board, runs, folder / "figures") for board in boards(runs)]
    unreadable = {f"{run.id}, {what}": reason for run in runs for what, reason in run.problems.items()}
    index = pages.get_template("index.html").render(
        title=title,
        root="",
        summary=_summary(runs),
        views=views,
        verdicts=verdicts,
        external=external,
        runs=runs,
        damaged={**damaged, **unreadable},
        here=texts.here,
        elsewhere=texts.elsewhere,
        joint_texts=texts.joint_texts,
        finding_text=texts.finding_text,
    )
    run_page = pages.get_template("run.html")
    for run in runs:
        write_atomic(folder / "runs" / f"{run.id}.html", run_page.render(**_run_facts(run)))
    write_atomic(folder / "style.css", (TEMPLATES / "style.css").read_text())
    write_atomic(folder / "index.html", index)
    return folder / "index.html"


def _link(run_id: str) -> str:
    return f"runs/{run_id}.html"


def _view(board: Board, runs: Sequence[Run], folder: Path) -> View:
    drawn = [
        ("seeds", "Seeds", figures.seeds(board, _link)),
        ("losses", "Training loss", figures.losses(board)),
        ("learning_rates", "Score against learning rate", figures.learning_rates(board, runs)),
        ("pareto_parameters", "Score against trainable parameters",
         figures.pareto(board, "parameters.adapter", "trainable parameters")),
        ("pareto_memory", "Score against peak memory",
         figures.pareto(board, "memory.peak_bytes", "peak memory, GiB", 2.0**-30)),
        ("pareto_time", "Score against training time", figures.pareto(board, "seconds.train", "training, seconds")),
    ]  # fmt: skip
    pictures = []
    for name, caption, figure in drawn:
        if figure is not None:
            full = f"{board.slug}_{name}"
            if name.startswith("pareto"):
                caption += " (ringed: no method is better at no higher cost)"
            pictures.append(Picture(full, caption, save(figure, folder, full)))
    return View(board, html.render(board.built, _link), tuple(pictures), tuple(disagreements(board)))


def _summary(runs: Sequence[Run]) -> str:
    records = [run.record for run in runs]
    done = sum(record.status == "done" for record in records)
    counts = [len({getattr(record, name) for record in records}) for name in ("method", "task", "model")]
    return f"{len(runs)} runs, {done} finished: {counts[0]} methods, {counts[1]} tasks, {counts[2]} models."


def _run_facts(run: Run) -> dict[str, Any]:
    record = run.record
    names = ("status", "model", "method", "rank", "alpha", "task", "train_set", "protocol", "seed", "lr")
    facts: list[tuple[str, Any]] = [(name, getattr(record, name)) for name in names]
    if record.failure is not None:
        facts.append(("failure", f"{record.failure.type}: {record.failure.message}"))
    for part in ("losses", "tokens", "seconds", "memory", "parameters"):
        value = getattr(record, part)
        if value is not None:
            facts.append((part, ", ".join(f"{key} {_number(number)}" for key, number in value.model_dump().items())))
    if record.provenance is not None:
        p = record.provenance
        facts += [("code", p.code_text())]
        facts += [("device", f"{p.device}, {p.dtype}, {p.threads} threads")]
        facts += [("data", f"{d.dataset} {d.split}: {d.source}, {d.rows} rows, {d.fingerprint[:16]}") for d in p.data]
    settings = [(key.removeprefix("config."), value) for key, value in run.flat.items() if key.startswith("config.")]
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True)
    return {
        "title": f"run {record.run_id}",
        "root": "../",
        "record": record,
        "facts": facts,
        "settings": settings,
        "text": text,
    }


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
