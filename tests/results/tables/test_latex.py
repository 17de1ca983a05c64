"""LaTeX tables compile, fit their pages, and list run ids only on request."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sdsbench.results.tables import by_name
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.by_name import texts as all_texts
from sdsbench.results.tables.definition import Column, Row, Table
from sdsbench.results.tables.render import FORMATS, latex
from tests.results.tables.fixtures import built, make_record, write_run
from tests.results.tables.test_tables import SETTINGS, settings_table

NEEDS_LATEX = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (texlive-latex-recommended)")


HOSTILE = ["[x]*", "a\n\nb", r"\foo{$_^&%#~", "ünï†±‡<>", "模型", "\x1b[31m", "*", "``'' --"]


def compile_latex(tmp_path: Path, parts: list[str]) -> str:
    """Compile a plain article that holds these tables, and return pdflatex's log."""
    head = f"\\documentclass{{article}}{latex.PREAMBLE}\\begin{{document}}\n"
    (tmp_path / "tables.tex").write_text(head + "\n\\clearpage\n".join(parts) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-1500:]
    return done.stdout


def method_by_task_grid(rows: int, columns: int, root: Path) -> Built:
    """A grid with `rows` methods and `columns` tasks, two seeds per cell."""
    for row in range(rows):
        for column in range(columns):
            for seed in range(2):
                task = f"task{column}"
                score = {task: 0.3 + 0.004 * row + 0.01 * seed}
                write_run(root, make_record(f"method{row}", seed, score, task=task))
    return built("grid", root)


@pytest.mark.slow  # needs LaTeX
@NEEDS_LATEX
def test_latex_of_paper_tables_compiles_without_overfull_boxes(paper_runs: Path, tmp_path: Path) -> None:
    parts = [FORMATS["latex"][1](built(f"lora_sb/table{number}", paper_runs)) for number in "1234567"]
    parts += [by_name.facts_texts(settings_table(name))["tex"] for name in SETTINGS]
    parts.append(all_texts(built("grid", paper_runs), ("lora", None))["tex"])
    log = compile_latex(tmp_path, parts)
    assert "Overfull \\hbox" not in log and "Overfull \\vbox" not in log


@pytest.mark.slow  # needs LaTeX
@NEEDS_LATEX
@pytest.mark.parametrize("rows, columns", [(3, 1), (2, 25), (30, 5), (120, 1)])
def test_latex_tables_of_any_size_fit_their_pages(tmp_path: Path, rows: int, columns: int) -> None:
    text = FORMATS["latex"][1](method_by_task_grid(rows, columns, tmp_path / "runs"))
    log = compile_latex(tmp_path, [text])
    assert "Overfull \\hbox" not in log and "Overfull \\vbox" not in log
    assert "resizebox" not in text, "tables are not scaled"
    assert ("longtable" in text.partition("\n")[2]) == (rows > 40)
    assert text.count("\\begin{sidewaystable}") == (5 if columns == 25 else 0)


@NEEDS_LATEX
def test_latex_of_hostile_names_compiles(tmp_path: Path) -> None:
    rows = tuple(Row(str(number), name, {}) for number, name in enumerate(HOSTILE))
    columns = tuple(Column(str(number), name, {}, group=name) for number, name in enumerate(HOSTILE))
    compile_latex(tmp_path, [FORMATS["latex"][1](build(Table("a/b_c", " ".join(HOSTILE), rows, columns), []))])


def test_latex_lists_run_ids_only_on_request(tmp_path: Path) -> None:
    first = write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.5}))
    write_run(tmp_path, make_record("lora", 1, {"gsm8k": 0.5}, code_hash="c9"))
    held_back = make_record("lora", 9, {"gsm8k": 0.9}, stage="validation", config={"eval": {"split": "validation"}})
    write_run(tmp_path, held_back)
    table = built("grid", tmp_path)
    plain, named = FORMATS["latex"][1](table), all_texts(table, run_ids=True)["tex"]
    assert re.search(r"\b[0-9a-f]{16}\b", plain) is None
    assert "code.core: c0; c9" in plain and "Excluded runs: 1 (scored on rows held back" in plain
    assert first.name in named and held_back.run_id in named
