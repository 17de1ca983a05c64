"""README and study pages: result tables equal those made from the committed records, links resolve, examples run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from scripts.write_study_results import PAGES, written
from sdsbench.core.step_log import KINDS
from tests.conftest import ROOT
from tests.results.tables.fixtures import make_record, make_samples, write_run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_result_tables_of_the_page_are_those_of_the_records(page: Path) -> None:
    text = page.read_text()
    assert "<!-- table: " in text
    assert written(text) == text, "run: python scripts/write_study_results.py"


def test_every_document_that_the_readme_links_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_example_of_frames_runs_and_names_every_kind_of_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "load_runs" in block]
    steps = [{"kind": "train", "step": step, "loss": 1 / step} for step in (1, 2)]
    for seed in range(2):
        write_run(
            tmp_path / "results/runs",
            make_record("lora", seed, {"gsm8k": 0.5}), {"gsm8k": make_samples([True, False])}, steps,
        )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example)
    runpy.run_path("example.py")
    assert re.search(r"lora +0\.5 +0\.0 +2", capsys.readouterr().out)
    named = re.search(r'kind="(\w+)"\).*other kinds: ([\w, ]+)', example)
    assert named is not None and {named[1], *named[2].split(", ")} == {*KINDS}
