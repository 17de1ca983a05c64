"""The notebook of examples/ runs from its first cell to its last, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: the test extra")
nbformat = pytest.importorskip("nbformat", reason="needs nbformat: the test extra")
NOTEBOOK = Path(__file__).parent.parent / "examples" / "from_python.ipynb"


def test_every_cell_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "no output is committed"
    nbclient.NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    displayed = [
        output.get("data", {}).get("text/html", "") + output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    assert any("run <code>" in text for text in displayed), "a record shows its scores"
    assert any("2 methods" in text for text in displayed), "the plan describes what the budget affords"
    assert sorted(path.name for path in (tmp_path / "results/plans").iterdir()) == ["notebook"]
