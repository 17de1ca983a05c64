"""Hostile texts in records: commands print them as text, and they break neither a table nor a page."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.record import Failure
from sdsbench.core.run_folder import write_record
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.sweeps.tools import put_record, tiny_plan

HOSTILE = "[/red] index [a] \x1b[2J\rgone \u202e <script>alert(1)</script> $\\foo{$ |"
SHOWN = "[/red] index [a] \\x1b[2J\\rgone \\u202e <script>alert(1)</script> $\\foo{$ |"
LABEL = "=cmd|' [/red] [a] <script>alert(1)</script> $\\foo{$ \u202e"
"""Hostile text that a record accepts as a name, since names may hold anything but control characters."""


def printed_text(capsys: pytest.CaptureFixture[str]) -> str:
    """The standard output, after a check that no control character was printed."""
    found = capsys.readouterr()
    for letter in "\x1b\r\u202e":
        assert letter not in found.out + found.err, ascii(letter)
    assert "Traceback" not in found.err
    return found.out


@pytest.mark.parametrize(("message", "shown"), [(HOSTILE, SHOWN), ("", ""), ("\nonly a second line", "")])
def test_status_prints_the_message_of_a_failure_literally(
    message: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with rich markup such as `[/red]`, and with an empty message."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    for identity in plan.manifest.runs:
        record = put_record(plan, tmp_path / "runs", identity, "failed", None)
        record.failure = Failure(type="ValueError", message=message)
        write_record(tmp_path / "runs" / identity, record)
    capsys.readouterr()
    for more in ([], ["--all"]):
        assert main(["status", str(plan.folder), *more]) == 0
        text = " ".join(printed_text(capsys).split())  # a message may be wrapped in its column
        assert "2 failed" in text and text.count(shown) >= 2


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three seeds of two methods, one with a hostile name, all with hostile answers, and a run that failed."""
    for name in (LABEL, "lora"):
        for seed in range(3):
            rows = [row | {"response": HOSTILE, "prompt": HOSTILE} for row in make_samples([True, seed > 0])]
            steps = [{"kind": "train", "step": step, "loss": 1 / step, "lr": 1e-3} for step in (1, 2, 3)]
            record = make_record(name, seed, {"gsm8k": 0.5 + 0.5 * (seed > 0)}, n=2, model=LABEL)
            write_run(tmp_path / "runs", record, {"gsm8k": rows}, steps)
    failed = make_record("lora", 9, status="failed")
    failed.failure = Failure(type="ValueError", message=HOSTILE)
    write_run(tmp_path / "runs", failed)
    return tmp_path / "runs"


def test_tables_traces_verdicts_and_pages_escape_hostile_texts(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--runs", str(runs)]
    for words in (["table", "grid"], ["table", "compare"], ["table", "paragraph"], ["verdict"]):
        assert main([*words, *place]) == 0, words
        printed_text(capsys)
    assert main(["table", "grid", *place, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(printed_text(capsys))))
    assert not any(field.startswith(("=", "+", "@")) for row in rows for field in row)
    assert any(field.startswith("'=cmd") for row in rows for field in row)
    for kind, raw in (("latex", "$\\foo{$"), ("html", "<script>")):
        assert main(["table", "grid", *place, "--format", kind]) == 0
        assert raw not in printed_text(capsys)
    shown = []
    for folder in sorted(runs.iterdir()):
        assert main(["trace", folder.name, *place]) == 0
        shown.append(printed_text(capsys))
    assert sum(SHOWN in text for text in shown) == 1, "the failure, as text"
    assert main(["report", *place, "--output", str(tmp_path / "report")]) == 0
    printed_text(capsys)
    pages = [tmp_path / "report" / "index.html", *(tmp_path / "report" / "runs").glob("*.html")]
    assert len(pages) == 8
    for page in pages:
        text = page.read_text()
        assert "<script>" not in text and not {"\x1b", "\r", "\u202e"} & set(text)
    assert sum("&lt;script&gt;alert(1)" in page.read_text() for page in pages) == 8
