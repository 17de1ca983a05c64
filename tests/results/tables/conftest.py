"""Runs that fill the paper tables, made once per module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.results.tables.papers import write_paper_runs


@pytest.fixture(scope="module")
def paper_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs for LoRA-SB's Tables 1 (three seeds), 2 and 3 (two seeds)."""
    root = tmp_path_factory.mktemp("runs")
    write_paper_runs(root, "lora_sb/table1")
    for name in ("lora_sb/table2", "lora_sb/table3"):
        write_paper_runs(root, name, seeds=2)
    return root
