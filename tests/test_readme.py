"""README.md stays true: its result table is the one that the committed records give."""

from __future__ import annotations

from scripts.write_readme_results import written
from tests.conftest import ROOT


def test_result_table_is_generated() -> None:
    readme = (ROOT / "README.md").read_text()
    assert written(readme) == readme, "run: python scripts/write_readme_results.py"


def test_every_document_that_it_links_exists() -> None:
    import re

    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
