"""One damaged file is reported once, with path and reason, and everything else is shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from sdsbench.__main__ import main
from sdsbench.core import samples
from sdsbench.results.importers import external
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.sweeps.tools import tiny_plan

STEPS = [{"kind": "train", "step": step, "loss": 1 / step, "lr": 1e-3} for step in range(1, 8)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods with three seeds each."""
    for method, right in (("lora", [True, False, False, True]), ("dora", [True, True, True, False])):
        for seed in range(3):
            record = make_record(method, seed, {"gsm8k": sum(right) / 4}, n=4, config={"probe": {"every": 1}})
            folder = write_run(tmp_path / "runs", record, {"gsm8k": make_samples(right)}, STEPS)
            samples.write(folder / "probes" / "000001.jsonl.zst", [{"layer": "model.layers.0.q_proj", "gain": 0.5}])
    return tmp_path / "runs"


def answers_with_a_number_as_row(folder: Path) -> Path:
    path = folder / "samples" / "gsm8k.trained.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(b'{"index": 0, "scores": {}}\n1\n'))
    return path


def steps_with_a_line_without_kind(folder: Path) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + path.read_text())
    return path


def record_is_a_folder(folder: Path) -> Path:
    path = folder / "record.json"
    path.unlink()
    path.mkdir()
    return path


def record_is_a_pipe(folder: Path) -> Path:
    path = folder / "record.json"
    path.unlink()
    os.mkfifo(path)
    return path


def record_with_a_path_as_run_id(folder: Path) -> Path:
    """The checksum matches, and a page named after the id would lie outside the report's folder."""
    from sdsbench.core.hashing import sha256_of

    path = folder / "record.json"
    tree = {**json.loads(path.read_text()), "run_id": "../../../escaped", "checksum": ""}
    path.write_text(json.dumps({**tree, "checksum": sha256_of(tree)}))
    return path


FAULTS = [
    answers_with_a_number_as_row,
    steps_with_a_line_without_kind,
    record_is_a_folder,
    record_is_a_pipe,
    record_with_a_path_as_run_id,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_damaged_file_is_reported_once_and_other_runs_are_shown(
    fault: Callable[[Path], Path], runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fault(sorted(runs.iterdir())[0])
    of_record = path.name == "record.json"
    before = {str(p) for p in tmp_path.rglob("*")}
    output = tmp_path / "report"
    assert main(["report", "--runs", str(runs), "--output", str(output), "--claims", str(empty_claims(tmp_path))]) == 0
    page = (output / "index.html").read_text()
    assert page.count(str(path)) == 1 and "DoRA" in page and "LoRA" in page
    assert len(list((output / "runs").glob("*.html"))) == (5 if of_record else 6)
    error = capsys.readouterr().err
    assert error.count(str(path)) == 1 and error.count("\n") == 1
    after = {str(p) for p in tmp_path.rglob("*") if not p.is_relative_to(output)}
    assert after - before == {str(tmp_path / "claims.yaml")}
    assert main(["table", "grid", "--runs", str(runs)]) == 0
    table = capsys.readouterr().out
    assert "DoRA" in table and f"Runs: {5 if of_record else 6} finished" in table
    assert main(["verdict", "--runs", str(runs)]) == 0
    assert str(path) in capsys.readouterr().err or not of_record


def empty_claims(folder: Path) -> Path:
    (folder / "claims.yaml").write_text("claims: []\n")
    return folder / "claims.yaml"


def test_message_names_every_record_where_all_are_damaged(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in runs.iterdir():
        (folder / "record.json").write_text("{")
    assert main(["table", "grid", "--runs", str(runs)]) == 3
    error = capsys.readouterr().err
    assert "none of 6 records can be read" in error and error.count("record.json") == 6


def test_run_folder_that_links_elsewhere_is_reported_but_the_root_may_be_a_link(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sorted(runs.iterdir())[0]
    shutil.move(folder, tmp_path / folder.name)
    folder.symlink_to(tmp_path / folder.name)
    (tmp_path / "scratch").symlink_to(runs)
    assert main(["table", "grid", "--runs", str(tmp_path / "scratch")]) == 0
    table = capsys.readouterr().out
    assert "Runs: 5 finished" in table and "a link out of its folder" in table


def run_bound_by_permissions(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command bound by file permissions: root gives up the capabilities that override them."""
    bound = [] if os.getuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    bound += [] if os.getuid() else ["--inh-caps=-dac_override,-dac_read_search"]
    if bound and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, or a user who is bound by file permissions")
    return subprocess.run([*bound, sys.executable, "-m", "sdsbench", *words], capture_output=True, text=True)


@pytest.fixture
def unreadable_run(runs: Path) -> Iterator[Path]:
    """The folder of a run, without permission to read it."""
    folder = sorted(runs.iterdir())[0]
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


def test_run_in_an_unreadable_folder_is_reported_and_the_others_are_counted(unreadable_run: Path) -> None:
    done = run_bound_by_permissions(["table", "grid", "--runs", str(unreadable_run.parent)])
    assert done.returncode == 0, done.stderr
    assert "Runs: 5 finished" in done.stdout
    assert unreadable_run.name in done.stdout and "Permission denied" in done.stdout


def test_bundle_is_refused_where_answers_cannot_be_read(runs: Path, tmp_path: Path) -> None:
    answers = sorted(runs.iterdir())[0] / "samples"
    answers.chmod(0)
    try:
        done = run_bound_by_permissions(["bundle", str(runs), "--output", str(tmp_path / "b.zip")])
    finally:
        answers.chmod(0o755)
    assert done.returncode == 3 and done.stderr.count("sdsbench: ") == 1
    assert str(answers) in done.stderr and "Permission denied" in done.stderr
    assert not (tmp_path / "b.zip").exists()


def test_errors_of_the_file_system_are_one_line(unreadable_run: Path, tmp_path: Path) -> None:
    for words, code in (
        (["status", "x" * 300], 2),
        (["table", "grid", "--runs", "x" * 300], 2),
        (["show", str(unreadable_run)], 3),
        (["report", "--runs", str(unreadable_run.parent), "--output", f"{tmp_path}/{'x' * 300}"], 2),
    ):
        done = run_bound_by_permissions(words)
        assert done.returncode == code and "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("sdsbench: ")


def test_damaged_imported_result_is_reported_and_the_others_are_shown(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "bad"):
        record = external.ExternalRecord(
            tool="peft", name=name, model="m", method="LORA", task="t", scores={"x": 0.5}, origin="0"
        )
        path = external.write(tmp_path / "external", record)
    path.write_text("[")
    words = [
        "report",
        "--runs",
        str(runs),
        "--output",
        str(tmp_path / "report"),
        "--external",
        str(tmp_path / "external"),
    ]
    assert main([*words, "--claims", str(empty_claims(tmp_path))]) == 0
    page, error = (tmp_path / "report" / "index.html").read_text(), capsys.readouterr().err
    assert page.count(str(path)) == 1 and ">good<" in page and "DoRA" in page
    assert error.count(str(path)) == 1 and error.count("\n") == 1


@pytest.mark.parametrize("verb", ["status", "disk", "clean"])
def test_unreadable_plans_are_reported_and_the_others_are_shown(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One plan is damaged, and one refers to an environment variable that is not set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCH_OF_TESTS", str(tmp_path))
    placed = "output_root=${oc.env:SCRATCH_OF_TESTS}/runs"
    for name in ("damaged", "elsewhere", "whole"):
        tiny_plan(tmp_path / "results" / "plans" / name, "seed=0", *([placed] if name == "elsewhere" else []))
    (tmp_path / "results" / "plans" / "damaged" / "plan" / "manifest.json").write_text("{")
    monkeypatch.delenv("SCRATCH_OF_TESTS")
    capsys.readouterr()
    assert main([verb]) == 0
    found = capsys.readouterr()
    text = found.out + found.err
    assert text.count("manifest.json") == 1 and text.count("SCRATCH_OF_TESTS}") == 1
    assert "whole/plan" in text or verb == "clean"


def test_trace_refuses_a_damaged_record_and_shows_another_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = sorted(runs.iterdir())
    (first / "record.json").write_text("{")
    assert main(["trace", first.name, "--runs", str(runs)]) == 3
    assert f"{first / 'record.json'}: not JSON" in capsys.readouterr().err
    assert main(["trace", second.name, "--runs", str(runs)]) == 0
    assert f"run {second.name}  seed" in capsys.readouterr().out
