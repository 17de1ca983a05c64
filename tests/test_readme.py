"""The pages stay true: their result tables are those that the committed records give."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.write_study_results import PAGES, written
from tests.conftest import ROOT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_result_tables_are_generated(page: Path) -> None:
    text = page.read_text()
    assert "<!-- table: " in text
    assert written(text) == text, "run: python scripts/write_study_results.py"


def test_every_document_that_it_links_exists() -> None:
    import re

    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
