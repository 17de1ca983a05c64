"""Bundles: their contents, the commands that read them, and bundles of verdicts and of plans."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
import zstandard

from sdsbench import load_runs, load_samples, load_steps
from sdsbench.__main__ import main
from sdsbench.core.errors import Refused, Unavailable
from sdsbench.core.record import Attempt
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.core.step_log import StepLog
from sdsbench.results.bundles import temporary
from sdsbench.results.bundles.manifest import FILE
from sdsbench.results.bundles.opened import opened
from sdsbench.results.bundles.write import write
from sdsbench.results.stored_answers import answers_of
from sdsbench.results.tables.rescore import rescored
from sdsbench.results.tables.runs import load
from tests.results.bundles.tools import contents, edit_lines, pack, reseal
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.sweeps.tools import put_record, tiny_plan


def test_bundle_holds_the_files_that_tables_need_and_nothing_private(bundle: Path, bundled_runs: Path) -> None:
    files = contents(bundle)
    (first, _) = sorted(path.name for path in bundled_runs.glob("*"))
    inside = {name.removeprefix(f"runs/{first}/") for name in files if name.startswith(f"runs/{first}/")}
    assert inside == {"record.json", "config.yaml", "metrics.jsonl", "samples/gsm8k.trained.jsonl.zst"}
    assert set(json.loads(files[FILE])["files"]) == set(files) - {FILE}
    text = b"".join(content for name, content in files.items() if name != "requirements.lock").decode(errors="replace")
    for private in (str(Path.home()), str(Path.cwd()), str(bundled_runs), '"host"'):
        assert private not in text
    kept = (bundled_runs / first / "private.jsonl").read_text()
    assert os.uname().nodename in kept, "the run folder still names the machine for its owner"


def test_bundles_of_the_same_runs_have_the_same_bytes(bundle: Path, bundled_runs: Path, tmp_path: Path) -> None:
    write(tmp_path / "two.zip", [bundled_runs])
    assert (tmp_path / "two.zip").read_bytes() == bundle.read_bytes()


def test_table_frames_verdict_report_and_trace_read_a_bundle(
    bundle: Path, bundled_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(bundle)
    assert main(["table", "grid", "--runs", str(bundled_runs)]) == 0
    by_folder = capsys.readouterr().out
    assert main(["table", "grid", "--runs", place]) == 0
    assert capsys.readouterr().out == by_folder, "a bundle and its folder give the same table"
    runs = load_runs(place)
    assert set(runs["origin"]) == {place}
    assert set(load_steps(place)["run_id"]) == set(load_samples(place)["run_id"]) == set(runs["run_id"])
    assert main(["verdict", "--runs", place]) == 0
    assert main(["report", "--runs", place, "--output", str(tmp_path / "report")]) == 0
    assert len(list((tmp_path / "report" / "runs").glob("*.html"))) == 2
    capsys.readouterr()
    assert main(["trace", runs["run_id"][0], "--runs", place]) == 0
    traced = capsys.readouterr().out
    assert f"{bundle}/runs/{runs['run_id'][0]}/record.json" in traced
    assert temporary.PREFIX not in traced


def test_bundle_of_verdicts_gives_the_tables_of_its_folder(
    bundled_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds no question, answer or step log; a hash still shows equal questions, and verdicts still give scores."""
    path = tmp_path / "verdicts.zip"
    assert main(["bundle", str(bundled_runs), "--verdicts", "-o", str(path)]) == 0
    files = contents(path)
    assert json.loads(files[FILE])["verdicts_only"]
    (stored, *_) = [content for name, content in files.items() if name.endswith(".jsonl.zst")]
    rows = [json.loads(line) for line in zstandard.ZstdDecompressor().decompressobj().decompress(stored).splitlines()]
    assert {*rows[0]} == {"index", "questions", "scores", "truncated"}
    assert not any("metrics" in name or "config" in name for name in files)
    capsys.readouterr()
    for table in (["table", "grid"], ["table", "compare", "--reference", "sds_lora"], ["verdict"]):
        printed = []
        for place in (bundled_runs, path):
            assert main([*table, "--runs", str(place)]) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]
    run = next(bundled_runs.glob("*"))
    both = [found for place in (run, path) for found in load([place])[0] if found.id == run.name]
    whole, small = (answers_of(found, found.record.scores[0]) for found in both)
    assert whole is not None and small is not None and whole.questions == small.questions
    assert main(["report", "--runs", str(path), "--output", str(tmp_path / "report")]) == 0
    with pytest.raises(Unavailable, match="verdicts are stored and no answers, which math:gcd could grade"):
        rescored([both[1]], "gsm8k=math:gcd")
    name = next(name for name in files if name.endswith(".jsonl.zst"))
    edit_lines(name, lambda lines: lines[0]["scores"].update(flexible=1.0 - lines[0]["scores"]["flexible"]))(files)
    reseal(files)
    pack(tmp_path / "changed.zip", files)
    (problems,) = opened(tmp_path / "changed.zip").problems.values()
    assert "flexible of gsm8k" in problems[0]


def test_bundle_of_verdicts_keeps_the_probe_lines_of_step_logs(bundled_runs: Path, tmp_path: Path) -> None:
    """Claims about gradients read these lines; that the log's other steps are missing is no contradiction."""
    runs = tmp_path / "runs"
    shutil.copytree(bundled_runs, runs)
    (folder, _) = sorted(runs.iterdir())
    with StepLog(folder / "metrics.jsonl") as log:
        log.write("probe", 1, gradient_A_effective_rank=3.5)
        log.write("method", 1, jump_mean=0.25)
    write(tmp_path / "verdicts.zip", [runs], verdicts_only=True)
    steps = load_steps([tmp_path / "verdicts.zip"])
    assert steps[["run_id", "kind", "step"]].to_numpy().tolist() == [[folder.name, "probe", 1]]
    assert opened(tmp_path / "verdicts.zip").problems == {}
    (run,) = [run for run in load([tmp_path / "verdicts.zip"])[0] if run.id == folder.name]
    assert [line["gradient_A_effective_rank"] for line in run.steps("probe")] == [3.5]


def test_bundle_of_an_unfinished_plan_says_how_many_runs_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    put_record(plan, tmp_path / "runs", next(iter(plan.manifest.runs)))
    assert main(["bundle", str(plan.folder), "-o", str(tmp_path / "plan.zip")]) == 0
    assert "is not finished: 1 of its runs have not ended and are not in it" in capsys.readouterr().out


def test_bundled_plan_names_no_local_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1", f"data.root={tmp_path / 'data'}")
    for identity in plan.manifest.runs:
        put_record(plan, tmp_path / "runs", identity)
    assert main(["bundle", str(plan.folder), "-o", str(tmp_path / "plan.zip")]) == 0
    files = contents(tmp_path / "plan.zip")
    assert str(tmp_path).encode() not in b"".join(files.values())
    folder = tmp_path / "elsewhere"
    with zipfile.ZipFile(tmp_path / "plan.zip") as file:
        file.extractall(folder)
    from sdsbench.sweeps.plan import read

    moved = read(folder / "plan")
    assert list(moved.manifest.runs) == list(plan.manifest.runs)
    assert moved.configuration(next(iter(moved.manifest.runs)), {}).data.root is None


def test_private_path_or_secret_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record("lora", 0, status="failed")
    assert record.failure is not None
    record.failure.message = "no file /home/somebody/data/gsm8k/train.parquet"
    folder = write_run(tmp_path / "runs", record)
    with pytest.raises(Refused, match=r"record.json holds an absolute path \(/home/somebody"):
        write(tmp_path / "a.zip", [folder])
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    leaking = write_run(tmp_path / "other", make_record("lora", 1, {"gsm8k": 1.0}), {"gsm8k": make_samples([True])})
    path = leaking / "samples" / "gsm8k.trained.jsonl.zst"
    from sdsbench.core import samples

    rows = samples.read(path)
    rows[0]["response"] = "my token is hf_abcdefghijkl"
    samples.write(path, rows)
    with pytest.raises(Refused, match="secret environment variable") as caught:
        write(tmp_path / "a.zip", [leaking])
    assert "hf_abcdefghijkl" not in str(caught.value)
    assert not (tmp_path / "a.zip").exists()


def test_failure_messages_and_attempts_name_no_machine_or_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "secret place"
    (root / "gsm8k").mkdir(parents=True)
    (root / "gsm8k" / "train.parquet").write_bytes(b"no parquet")
    (root / "gsm8k" / "test.parquet").write_bytes(b"no parquet")
    places = [f'data.root="{root}"', f"output_root={tmp_path / 'runs'}"]
    assert main(["model=micro", "method=lora", "data.source=local", *places]) == 3
    (path,) = (tmp_path / "runs").glob("*/record.json")
    text = path.read_text()
    for private in (str(tmp_path), os.uname().nodename + '"', f"/{getpass.getuser()}/"):
        assert private not in text
    message = read_record(path).failure.message  # type: ignore[union-attr]
    assert "(data.root)/gsm8k" in message and "parquet" in message
    kept = path.with_name("private.jsonl")
    assert str(root) in kept.read_text() and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "host" not in Attempt.model_fields


def test_table_of_two_places_names_the_origins_and_counts_a_shared_run_once(
    bundle: Path, bundled_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run is in both places with different scores: it counts once, and the table states the difference."""
    other = tmp_path / "other"
    (first, _) = sorted(path for path in bundled_runs.glob("*"))
    record = read_record(first / "record.json")
    record.scores[0].value = 0.75
    write_record(other / first.name, record)
    assert main(["table", "grid", "--runs", str(bundle), "--runs", str(other)]) == 0
    text = capsys.readouterr().out.replace("\\_", "_")
    assert "Runs: 2 finished" in text
    assert f"{first.name} is also in {other}" in text and "75.00" in text
    assert f"Origins: {bundle} (2 runs)" in text
