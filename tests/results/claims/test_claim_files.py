"""Files of claims, and claims about tables: which are read, and that a shipped table is nobody's own evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.results.claims.claim_files import FILES, PAPERS, read, register_claims
from sdsbench.results.claims.verdict import judge
from sdsbench.results.claims.verdict_texts import markdown
from tests.results.claims.tools import make_claim, verdict_on, write_runs


def test_claims_about_a_table(tmp_path: Path) -> None:
    (tmp_path / "slopes.csv").write_text("method,slope,lo,hi\nsds_lora,0.01,-0.02,0.03\nlora,-0.9,-1.0,-0.8\n")
    about = {"test": "file", "file": "slopes.csv", "columns": {"value": "slope", "low": "lo", "high": "hi"}}
    assert (
        verdict_on(tmp_path, make_claim(**about, row={"method": "sds_lora"}, bounds=[-0.1, 0.1])).answer == "reproduced"
    )
    assert (
        verdict_on(tmp_path, make_claim(**about, row={"method": "lora"}, bounds=[-0.1, 0.1])).answer == "contradicted"
    )
    below = make_claim(**about, row={"method": "lora"}, bounds=[None, -0.1])
    assert verdict_on(tmp_path, below).answer == "reproduced"
    assert "bounds unbounded to -0.1" in markdown([verdict_on(tmp_path, below)])
    assert verdict_on(tmp_path, make_claim(**{**about, "file": "none.csv"}, row={"method": "lora"})).findings == ()


def test_a_shipped_table_is_never_a_reproduction_of_ones_own(tmp_path: Path) -> None:
    shipped = next(c for c in read(PAPERS) if c.test == "file")
    result = judge(shipped, [], PAPERS.parent)
    assert result.source == "shipped theory bench" and result.plain()["evidence"] == "shipped theory bench"
    text = markdown([result])
    assert "no runs; shipped theory bench: reproduced" in text and "| reproduced |" not in text
    assert "shipped theory bench, no runs of yours" in text
    (tmp_path / "theory").mkdir()
    (tmp_path / shipped.file).write_text((PAPERS.parent / shipped.file).read_text())
    assert "no runs; given table: reproduced" in markdown([judge(shipped, [], tmp_path)])


def test_the_shipped_claims_are_valid() -> None:
    claims = read(PAPERS)
    assert len({c.id for c in claims}) == len(claims) >= 8


def test_missing_and_invalid_claim_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("claims: [{id: x, paper: p, sentence: s, test: higher}]")
    with pytest.raises(DamagedFile, match="needs measure, ours, same, theirs"):
        read(tmp_path / "bad.yaml")


def test_claims_of_every_registered_file_are_judged_and_ids_differ_between_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each claim reads its tables from the folder of its own file."""
    monkeypatch.setattr(FILES, "_values", {name: FILES.lookup(name) for name in FILES})
    mine = {"id": "mine", "paper": "mine", "sentence": "The error is small.", "test": "file", "file": "errors.csv",
            "row": {"method": "mine"}, "columns": {"value": "error", "low": "low", "high": "high"},
            "bounds": [None, 0.1]}  # fmt: skip
    path = tmp_path / "mine" / "claims.yaml"
    path.parent.mkdir()
    path.write_text(json.dumps({"claims": [mine]}))
    (path.parent / "errors.csv").write_text("method,error,low,high\nmine,0.01,0.0,0.02\n")
    register_claims("mine", path)
    write_runs(tmp_path / "runs", "lora", [0.5])
    assert main(["verdict", "--runs", str(tmp_path / "runs")]) == 0
    text = capsys.readouterr().out
    assert "| The error is small. | mine | no runs; given table: reproduced |" in text
    assert read(PAPERS)[0].sentence in text, "beside the project's own"
    path.write_text(json.dumps({"claims": [mine | {"id": read(PAPERS)[0].id}]}))
    assert main(["verdict", "--runs", str(tmp_path / "runs")]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert str(PAPERS) in message and str(path) in message
    assert main(["verdict", "--runs", str(tmp_path / "runs"), "--claims", str(path)]) == 0, "that file alone"
