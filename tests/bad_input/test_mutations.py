"""A thousand seeded mutations of every input format (mutation.py)."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.mutation import campaign, write_inputs


def test_damaged_input_raises_only_package_errors_and_loses_nothing_else(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "inputs")
    (tmp_path / "neighbour").mkdir()
    found = campaign(inputs, 1000, 0, tmp_path / "output")
    assert not found, f"{len(found)} faults; the first: {found[0]}"
