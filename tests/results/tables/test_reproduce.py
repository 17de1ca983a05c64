"""docs/reproduce.md equals the output of its script, and the named sweeps fill the tables of the papers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sdsbench.results.tables.table_registry import TABLES, get

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/write_reproduce.py as a module."""
    spec = importlib.util.spec_from_file_location("write_reproduce", ROOT / "scripts" / "write_reproduce.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("sweep", ["lora_sb/table4", "lora_sb/table6"])
def test_row_of_the_document_equals_the_estimate(script: ModuleType, sweep: str) -> None:
    """This test checks two small sweeps; the slow test below checks all."""
    runs = script.estimates(list(script.points(sweep)))
    hours = script._round(sum(run.hours for run in runs if run.fits))
    row = next(line for line in script.TARGET.read_text().splitlines() if line.startswith(f"| `{sweep}` |"))
    assert row.split(" | ")[1:4] == [str(len(runs)), str(sum(not run.fits for run in runs)), hours]


@pytest.mark.slow  # 5 minutes: every run of its document
def test_document_equals_the_output_of_the_script(script: ModuleType) -> None:
    assert (ROOT / "docs" / "reproduce.md").read_text() == script.document(), "run python scripts/write_reproduce.py"


@pytest.mark.parametrize("number", "123456")
def test_sweep_fills_every_cell_of_its_table_with_three_seeds(script: ModuleType, number: str) -> None:
    """Each cell with a measured number has exactly three runs of its sweep, and every run fills a cell."""
    table = get(f"lora_sb/table{number}")
    points = list(script.points(table.name))
    used: set[int] = set()
    for row in table.rows:
        for column in table.columns:
            if column.parts or column.measure == "parameters.adapter":
                continue
            found = [i for i, point in enumerate(points) if _fits(point, {**row.where, **column.where})]
            assert len({points[i]["seed"] for i in found}) == len(found) == 3, (row.name, column.name)
            used |= set(found)
    assert used == set(range(len(points)))


@pytest.mark.parametrize("sweep", ["math", "commonsense", "vision"])
def test_sds_lora_sweep_fills_every_cell_with_three_runs(script: ModuleType, sweep: str) -> None:
    points = list(script.points(f"sds_lora/{sweep}"))
    for table in (get(name) for name in TABLES if name.startswith(f"sds_lora/{sweep}")):
        for row in table.rows:
            for column in table.columns:
                if not column.parts:
                    found = [point for point in points if _fits(point, {**row.where, **column.where})]
                    assert len(found) == 3, (table.name, row.name, column.name)


_DEFAULTS = {
    "config.method.start": "gradient",
    "config.method.noise_std": 0.0,
    "config.method.samples": None,
    "config.method.sign": True,
    "config.method.approximation": True,
    "config.method.variant": "sds",
    "config.method.refresh": "author",
    "rank": None,
}


def _fits(point: dict, where: dict) -> bool:
    """Whether a point of a sweep is a run of this cell, with keys that the point lacks at their defaults."""
    for key, wanted in where.items():
        name = "method.rank" if key == "rank" else key.removeprefix("config.")
        value = point.get(name, _DEFAULTS.get(key))
        if isinstance(value, str) and isinstance(wanted, int | float):
            value = float(value)
        if value != wanted:
            return False
    return True
