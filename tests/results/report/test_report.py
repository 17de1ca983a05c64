"""The report: complete, linked without a network, reproduced byte for byte, and readable in a browser and in print."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sdsbench.__main__ import main
from sdsbench.core.record import Seconds, Tuning
from sdsbench.results.claims.claim_files import PAPERS, read
from sdsbench.results.claims.verdict import judge
from sdsbench.results.importers.external import ExternalRecord
from sdsbench.results.report.boards import boards
from sdsbench.results.report.disagreement import disagreements
from sdsbench.results.report.report_folder import build
from sdsbench.results.tables.loaded_runs import load
from tests.results.tables.fixtures import make_record, make_samples, write_run

METHODS = ("lora", "sds_lora", "full_ft")


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned study of three methods with one failed run, a second task, and a damaged record."""
    root = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(1)
    difficulty = rng.random(60)
    for number, method in enumerate(METHODS):
        rank = None if method == "full_ft" else 8
        for lr in (1e-4, 1e-3):
            held_back = {"eval": {"split": "validation"}, "train": {"lr": lr, "epochs": 1.0, "batch_size": 8}}
            score = {"gsm8k": 0.4 + 100 * lr}
            write_run(root, make_record(method, 9, score, lr=lr, rank=rank, stage="validation", config=held_back))
        chosen = Tuning(
            key="train.lr",
            grid=[1e-4, 1e-3],
            budget=2,
            seeds=[9],
            chosen=1e-3,
            scores=[0.4, 0.5],
            evaluation="gsm8k",
            scorer="flexible",
        )
        for seed in range(3):
            right = difficulty + rng.normal(0, 0.1, 60) < 0.4 + 0.15 * number
            done = (method, seed) != ("full_ft", 2)
            record = make_record(
                method,
                seed,
                {"gsm8k": float(right.mean())} if done else None,
                rank=rank,
                status="done" if done else "oom",
                tuning=chosen,
                config={"eval": {"split": "test"}},
            )
            steps = [{"kind": "train", "step": i + 1, "loss": 2 / (i + 1)} for i in range(30)]
            write_run(root, record, {"gsm8k": make_samples(right)} if done else None, steps)
    for seed in (0, 1):
        write_run(root, make_record("lora", seed, {"glue/rte": 0.6}, model="minilm", task="glue/rte", source="local"))
    (write_run(root, make_record("lora", 50)) / "record.json").write_text("{")
    return root


def write_report(runs_folder: Path, output: Path) -> Path:
    runs, damaged = load(runs_folder)
    verdicts = [judge(claim, runs, runs_folder) for claim in read(PAPERS)]
    other = ExternalRecord(
        tool="peft", name="lora <b>", model="m", method="LORA", task="t", scores={"test accuracy": 0.48}, origin="0"
    )
    return build(output, runs, damaged, verdicts, [other])


@pytest.fixture(scope="module")
def report(runs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(runs_folder, tmp_path_factory.mktemp("report"))


class LinkParser(HTMLParser):
    """Collects the links and the ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "xlink:href", "src") and value:
                self.found.append(value)
            if name == "id" and value:
                self.ids.add(value)


def test_every_link_leads_to_a_file_or_id_of_the_report(runs_folder: Path, report: Path) -> None:
    pages = [report, *(report.parent / "runs").glob("*.html")]
    assert len(pages) == 1 + len(load(runs_folder)[0])
    for page in pages:
        links = LinkParser()
        links.feed(page.read_text())
        for link in links.found:
            if link.startswith("#"):
                assert link[1:] in links.ids, link
            elif not link.startswith("data:"):
                assert not re.match(r"[a-z]+:|//", link), link
                assert (page.parent / link).is_file(), link


def test_each_score_links_to_its_runs(runs_folder: Path, report: Path) -> None:
    text = report.read_text()
    for run in load(runs_folder)[0]:
        if run.record.tuning or run.record.task == "glue/rte":
            assert f'href="runs/{run.id}.html"' in text
            if run.record.status == "done":  # its point in the figure links to it too
                assert text.count(f'xlink:href="runs/{run.id}.html"') >= 1


def test_report_names_tasks_failures_claims_and_imported_records(report: Path) -> None:
    text = report.read_text()
    assert "GSM8K (embedded)" in text and "1 oom" in text
    assert "undecided (no runs)" in text and "Damaged records" in text
    assert "lora &lt;b&gt;" in text and "never averaged or ranked" in text
    assert "<script" not in text
    names = {path.name for path in (report.parent / "figures").iterdir()}
    for figure in ("forest", "seeds", "losses", "learning_rates", "pareto_parameters"):
        assert {f"board1_{figure}.{ending}" for ending in ("svg", "png", "pdf")} <= names
    assert not any("pareto_memory" in name for name in names)  # memory was measured per process, not per run
    assert not any("pareto_time" in name for name in names)  # all runs took the same time


def test_same_records_give_the_same_bytes(runs_folder: Path, report: Path, tmp_path: Path) -> None:
    write_report(runs_folder, tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        assert (tmp_path / file).read_bytes() == (report.parent / file).read_bytes(), file


def test_boards_rank_methods_and_disagreements_count_questions(runs_folder: Path) -> None:
    runs, _ = load(runs_folder)
    board = next(b for b in boards(runs) if b.column.evaluation == "gsm8k")
    assert [row.where and cell.runs[0].record.method for row, cell in board.valued] == ["full_ft", "sds_lora", "lora"]
    found = disagreements(board)
    assert [d.theirs for d in found] == ["SDS-LoRA, r 8", "LoRA, r 8"]
    for d in found:
        assert d.only_ours + d.only_theirs + d.both + d.neither == 60
        best = next(run for run in runs if run.id == d.runs[0])
        assert (d.only_ours + d.both) / 60 == pytest.approx(best.record.scores[0].value)


def test_runs_that_must_not_be_averaged_affect_only_their_own_board(tmp_path: Path) -> None:
    """The cell is marked, the line below the table names the difference, and boards of other models are unchanged."""
    for seed in (0, 1):
        for code in ("c0", "c9"):
            model = f"m{seed}" if code == "c0" else "micro"
            write_run(tmp_path, make_record("lora", seed, {"gsm8k": 0.6}, model=model, code_hash=code))
    write_run(tmp_path, make_record("lora", 3, {"gsm8k": 0.6}))
    found = boards(load(tmp_path)[0])
    assert [[board.cell(row).status for row in board.rows] for board in found] == [["value"], ["value"], ["unequal"]]
    text = build(tmp_path / "out", load(tmp_path)[0], {}).read_text()
    assert "not averaged, the runs differ in code.core: c0 in" in text


def test_report_command_selects_runs(runs_folder: Path, tmp_path: Path) -> None:
    assert main(["report", "--runs", str(runs_folder), "--output", str(tmp_path / "r"), "--where", "model=minilm"]) == 0
    assert (tmp_path / "r" / "index.html").is_file()


TARGETS = "nav a, .runs a, .files a, .answers a, .collapsed a, tbody th a, summary"
"""Selectors of links that must be large enough for a finger; links inside a sentence are as high as its line."""
MEASURE = """
const root = document.documentElement;
const shown = (e) => e.getClientRects().length > 0;
const small = [...document.querySelectorAll("%s")].filter(shown).filter((e) => {
  const box = e.getBoundingClientRect(); return box.width < 24 || box.height < 24; });
const named = (e) => e.getAttribute("aria-label") || e.textContent.trim();
const nameless = [...document.querySelectorAll("svg, a")].filter((e) => !named(e));
parent.document.body.dataset.found = [root.scrollWidth, window.innerWidth, small.length, nameless.length].join(" ");
""".replace("%s", TARGETS)


@pytest.mark.slow  # needs a browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1440, 390])
def test_pages_fit_the_window_with_large_named_targets(report: Path, tmp_path: Path, width: int) -> None:
    """No page is wider than the window (wide tables scroll in their own frame), no target is below 24 pixels, and
    every figure and link has a name."""
    pages = [report, next((report.parent / "runs").glob("*.html"))]
    shutil.copytree(report.parent, tmp_path / "report")
    for number, page in enumerate(pages):
        copy = tmp_path / "report" / page.relative_to(report.parent)
        copy.write_text(page.read_text().replace("</body>", f"<script>{MEASURE}</script></body>"))
        frame = f'<iframe src="{copy.as_uri()}" style="width:{width}px;height:4000px;border:0"></iframe>'
        (tmp_path / f"frame{number}.html").write_text(f"<!doctype html><body>{frame}</body>")
        switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking dump-dom"
        switches += " disable-component-update disable-sync allow-file-access-from-files virtual-time-budget=5000"
        command = ["chromium", *(f"--{switch}" for switch in switches.split())]
        command += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / f"frame{number}.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True)
        found = re.search(r'data-found="(\d+) (\d+) (\d+) (\d+)"', done.stdout)
        assert found, done.stderr[-500:]
        content, window, small, nameless = map(int, found.groups())
        assert content <= window == width, page.name
        assert small == nameless == 0, page.name


@pytest.mark.slow  # needs a browser
@pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("pdftotext") is None, reason="needs chromium, pdftotext"
)
def test_printed_page_shows_folded_numbers_and_hides_file_links(report: Path, tmp_path: Path) -> None:
    """Print shows the numbers of claims, which the page folds, and leaves out links to files."""
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    command = ["chromium", *(f"--{switch}" for switch in switches.split()), f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run([*command, f"--print-to-pdf={tmp_path / 'page.pdf'}", report.as_uri()], capture_output=True)
    done = subprocess.run(["pdftotext", "-layout", "page.pdf", "-"], cwd=tmp_path, capture_output=True, text=True)
    words = " ".join(done.stdout.split())
    finding = html.unescape(
        report.read_text().partition('class="printed"')[2].partition("<li>")[2].partition("</li>")[0]
    )
    assert finding and " ".join(finding.split())[:60] in words
    assert "PNG" not in words


def test_mean_over_tasks_shows_parameters_and_no_cost_of_other_tasks_together(tmp_path: Path) -> None:
    """The training times of six tasks are no six times of one: each task's board has its own."""
    for task in ("cola", "rte", "mrpc", "stsb", "qnli", "sst2"):
        for method, seconds in (("lora", 20.0), ("dora", 30.0)):
            for seed in range(3):
                scores = {f"glue/{task}": 0.5 + 0.01 * seed}
                record = make_record(method, seed, scores, task=f"glue/{task}", seconds=Seconds(train=seconds))
                write_run(tmp_path, record)
    *of_tasks, mean = boards(load(tmp_path)[0])
    assert [column.name for column in mean.built.table.columns[1:]] == ["trainable"]
    assert not any(cell.problems for cell in mean.built.cells.values())
    assert not any("not averaged" in line for line in mean.built.footer)
    for board in of_tasks:
        assert {board.built.cells[row.name, "train_seconds"].status for row in board.rows} == {"value"}
