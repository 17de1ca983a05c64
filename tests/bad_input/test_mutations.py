"""A thousand seeded mutations of everything that is read: no traceback, no hang, nothing outside, nothing else lost."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.mutation import campaign, make


def test_a_thousand_mutations(tmp_path: Path) -> None:
    given = make(tmp_path / "given")
    (tmp_path / "precious").mkdir()
    found = campaign(given, 1000, 0, tmp_path / "output")
    assert not found, f"{len(found)} faults; the first: {found[0]}"
