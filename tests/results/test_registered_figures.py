"""A registered figure that fails on the runs is named with its reason; it ends neither the report nor a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.core.errors import Refused
from sdsbench.results import figures
from sdsbench.results.report.report_folder import build
from sdsbench.results.tables.loaded_runs import load
from tests.results.tables.fixtures import make_record, write_run


def fails(runs: object) -> object:
    raise KeyError("alignment")


def test_figure_that_fails_is_named_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures.FIGURES, "_values", {name: figures.FIGURES.lookup(name) for name in figures.FIGURES})
    figures.register_figure("mine/failing", f"{__name__}:fails", "A caption.")
    write_run(tmp_path / "runs", make_record(scores={"gsm8k": 0.5}))
    runs, damaged = load([tmp_path / "runs"])
    with pytest.raises(Refused, match=r"figure mine/failing cannot be drawn .*KeyError: 'alignment'"):
        figures.draw("mine/failing", runs)
    page = build(tmp_path / "report", runs, damaged, [], []).read_text()
    assert "figure mine/failing cannot be drawn from these runs (KeyError: &#39;alignment&#39;)" in page
    assert "A caption." not in page
