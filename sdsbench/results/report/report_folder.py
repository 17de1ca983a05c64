"""Building the report: index.html, one page per run, figures. Equal records give equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sdsbench.core.errors import Refused
from sdsbench.core.files import write_atomic
from sdsbench.results.claims import verdict_texts
from sdsbench.results.claims.verdict import Verdict
from sdsbench.results.figure_style import save
from sdsbench.results.figures import Picture, save_each
from sdsbench.results.importers.external import ExternalRecord
from sdsbench.results.paper_text.bibtex import bibtex
from sdsbench.results.paper_text.paragraph import paragraphs
from sdsbench.results.report import plots
from sdsbench.results.report.boards import Board, boards
from sdsbench.results.report.conclusion import conclusion
from sdsbench.results.report.disagreement import Disagreement, disagreements
from sdsbench.results.report.pages import template, write_style
from sdsbench.results.report.run_page import run_page
from sdsbench.results.tables.loaded_runs import Run, problems_of
from sdsbench.results.tables.render import html
from sdsbench.results.tables.titles import method_title, model_title, task_title


@dataclass(frozen=True)
class BoardView:
    """The parts of one board on the page: its conclusion first, then the evidence."""

    board: Board
    answer: str
    table: str
    forest: tuple[Picture, ...]
    curves: tuple[Picture, ...]
    costs: tuple[Picture, ...]
    disagreements: tuple[Disagreement, ...]


def build(
    folder: Path,
    runs: Sequence[Run],
    damaged: dict[str, str],
    verdicts: Sequence[Verdict] = (),
    external: Sequence[ExternalRecord] = (),
    title: str = "sdsbench report",
    reference: str = "lora",
    rank: int | None = None,
    lead: Sequence[str] = (),
) -> Path:
    """Write the report into `folder` and return its index.html.

    `reference`: the method that all others are compared with, at equal rank or at `rank`; `lead`: the page's first
    sentences.
    """
    found = boards(runs, reference=reference, rank=rank)
    views = [_view(board, folder / "figures") for board in found]
    run_pages = {run.id: run_page(run) for run in runs}
    registered = [drawn for _, drawn in save_each(runs, folder / "figures")]
    # Files are read on demand, so the list of unreadable ones is complete only after all pages are made.
    index = template("index.html").render(
        title=title,
        root="",
        summary=_summary(runs),
        lead=lead,
        views=views,
        second_scores=list(_second_scores(found, folder / "figures")),
        registered=[drawn for drawn in registered if isinstance(drawn, Picture)],
        refused_figures=[str(drawn) for drawn in registered if isinstance(drawn, Refused)],
        verdicts=verdicts,
        external=external,
        runs=runs,
        damaged={**damaged, **problems_of(runs)},
        paragraphs=paragraphs(runs),
        bibtex=bibtex(runs),
        paper_setting_answer=verdict_texts.paper_setting_answer,
        other_settings_answer=verdict_texts.other_settings_answer,
        joint_texts=verdict_texts.joint_texts,
        finding_text=verdict_texts.finding_text,
        method_title=method_title,
        model_title=model_title,
        task_title=task_title,
    )
    page = template("run.html")
    for run_id, facts in run_pages.items():
        write_atomic(folder / "runs" / f"{run_id}.html", page.render(**facts))
    write_style(folder)
    write_atomic(folder / "index.html", index)
    return folder / "index.html"


def _link(run_id: str) -> str:
    return f"runs/{run_id}.html"


def _view(board: Board, folder: Path) -> BoardView:
    name = plots.metric(board)
    forest = [("forest", f"Difference to {board.reference}", plots.forest(board))]
    curves = [
        ("seeds", "Every seed", plots.seeds(board, _link)),
        ("learning_rates", "Score against learning rate", plots.learning_rates(board)),
        ("losses", "Training loss", plots.losses(board)),
    ]
    ringed = " (ringed: no method is better at no higher cost)"
    costs = [
        ("pareto_parameters", f"Score against trainable parameters{ringed}",
         plots.pareto(board, "trainable", "trainable parameters")),
        ("pareto_memory", f"Score against peak memory{ringed}",
         plots.pareto(board, "memory", "peak memory, GiB")),
        ("pareto_time", f"Score against training time{ringed}",
         plots.pareto(board, "train_seconds", "training, seconds")),
    ]  # fmt: skip

    def drawn(named: Sequence[tuple[str, str, Any]]) -> tuple[Picture, ...]:
        return tuple(
            _picture(folder, f"{board.slug}_{kind}", caption, f"{caption}: {board.title}, {name}", figure)
            for kind, caption, figure in named
            if figure is not None
        )

    return BoardView(
        board, conclusion(board), html.render(board.built, _link), drawn(forest), drawn(curves), drawn(costs),
        tuple(disagreements(board)),
    )  # fmt: skip


def _picture(folder: Path, name: str, caption: str, label: str, figure: Any) -> Picture:
    return Picture(name, caption, save(figure, folder / name, label))


def _second_scores(found: Sequence[Board], folder: Path) -> Iterator[Picture]:
    """One figure per pair of scores of the same runs; the parts of a mean count as one score."""
    for first, second in combinations([board for board in found if not board.column.parts], 2):
        means = [
            {*parts}
            for run in first.tried
            for task in run.record.means.values()
            for parts in task.values()
        ]  # fmt: skip
        evaluations = {first.column.evaluation, second.column.evaluation}
        if len(evaluations) == 1 or any(evaluations <= parts for parts in means):
            continue
        figure = plots.two_scores(first, second)
        if figure is not None:
            caption = f"{second.column.title} against {first.column.title} (line: no method is better on both)"
            yield _picture(folder, f"{first.slug}_{second.slug}", caption, f"{caption}: {first.title}", figure)


def _summary(runs: Sequence[Run]) -> str:
    records = [run.record for run in runs]
    done = sum(record.status == "done" for record in records)
    counts = [len({getattr(record, name) for record in records}) for name in ("method", "task", "model")]
    kinds = (
        f"{count} {name}{'s' * (count != 1)}" for count, name in zip(counts, ("method", "task", "model"), strict=True)
    )
    return f"{len(runs)} runs, {done} finished: {', '.join(kinds)}."
