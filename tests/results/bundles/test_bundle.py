"""Bundles: what is in one, what reads it, and that every change of one is named."""

from __future__ import annotations

import getpass
import io
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sdsbench import load_runs, load_samples, load_steps
from sdsbench.__main__ import main
from sdsbench.core.errors import DamagedFile, Refused, Unavailable
from sdsbench.core.hashing import sha256_of
from sdsbench.core.record import Attempt, Record
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.core.step_log import StepLog
from sdsbench.results.bundles import consistency, temporary
from sdsbench.results.bundles.consistency import configuration_text
from sdsbench.results.bundles.manifest import FILE
from sdsbench.results.bundles.opened import opened
from sdsbench.results.bundles.write import write
from sdsbench.results.frames import read_all
from sdsbench.results.stored_answers import answers_of
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.rescore import rescored
from sdsbench.runs.configuration.identity import recorded_id
from tests.results.bundles.tools import Files, contents, edit_json, edit_lines, pack, reseal
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.sweeps.tools import put_record, tiny_plan


def test_a_bundle_holds_what_tables_need_and_nothing_private(bundle: Path, bundled_runs: Path) -> None:
    files = contents(bundle)
    (first, _) = sorted(path.name for path in bundled_runs.glob("*"))
    inside = {name.removeprefix(f"runs/{first}/") for name in files if name.startswith(f"runs/{first}/")}
    assert inside == {"record.json", "config.yaml", "metrics.jsonl", "samples/gsm8k.trained.jsonl.zst"}
    assert set(json.loads(files[FILE])["files"]) == set(files) - {FILE}
    text = b"".join(content for name, content in files.items() if name != "requirements.lock").decode(errors="replace")
    for private in (str(Path.home()), str(Path.cwd()), str(bundled_runs), '"host"'):
        assert private not in text
    kept = (bundled_runs / first / "private.jsonl").read_text()
    assert os.uname().nodename in kept, "the owner still sees which machine it was"


def test_the_same_runs_give_the_same_bytes(bundle: Path, bundled_runs: Path, tmp_path: Path) -> None:
    write(tmp_path / "two.zip", [bundled_runs])
    assert (tmp_path / "two.zip").read_bytes() == bundle.read_bytes()


def test_tables_frames_verdict_and_report_read_a_bundle(
    bundle: Path, bundled_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(bundle)
    assert main(["table", "grid", "--runs", str(bundled_runs)]) == 0
    by_folder = capsys.readouterr().out
    assert main(["table", "grid", "--runs", place]) == 0
    assert capsys.readouterr().out == by_folder, "what a bundle says is what its folder says"
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


def _set(*keys: Any, to: Any) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = to

    return change


RECORD, LOG, ANSWERS = "/record.json", "/metrics.jsonl", "/gsm8k.trained.jsonl.zst"


def _remove(name: str) -> Callable[[Files], None]:
    return lambda files: files.pop(next(key for key in sorted(files) if key.endswith(name))) and None


def _write(name: str, content: bytes) -> Callable[[Files], None]:
    return lambda files: files.update({next(key for key in sorted(files) if key.endswith(name)): content})


def _right(answers: list[dict[str, Any]]) -> None:
    answers[0]["response"] = f"The answer is {answers[0]['target']}. #### {answers[0]['target']}"


CHANGES: list[tuple[str, Callable[[Files], None], str]] = [
    ("score", edit_json(RECORD, _set("scores", 0, "value", to=0.75)), "by its answers"),
    ("standard error", edit_json(RECORD, _set("scores", 0, "stderr", to=0.3)), "stderr"),
    ("questions", edit_json(RECORD, _set("scores", 0, "n", to=5)), "counts 5 questions"),
    ("undecided", edit_json(RECORD, _set("scores", 0, "undecided", to=1)), "undecided"),
    ("evaluation version", edit_json(RECORD, _set("scores", 0, "version", to=9)), "version"),
    ("a scorer", edit_json(RECORD, _set("scores", 0, "scorer", to="lenient")), "lenient"),
    ("score of the log", edit_lines(LOG, lambda lines: lines[-1].update(value=0.75)), "not as in the log"),
    ("verdict", edit_lines(ANSWERS, lambda rows: rows[1]["scores"].update(flexible=1.0)), "other verdicts by flexible"),
    ("answer", edit_lines(ANSWERS, _right), "other verdicts"),
    ("gold answer", edit_lines(ANSWERS, lambda rows: rows[2].update(target="0")), ""),
    ("answer left out", edit_lines(ANSWERS, lambda rows: rows.pop()), "3 answers are stored"),
    ("answer twice", edit_lines(ANSWERS, lambda rows: rows.append({**rows[0], "index": 4})), "5 answers are stored"),
    ("rate of the record", edit_json(RECORD, _set("lr", to=2e-3)), "lr is 0.002"),
    ("rate", edit_json(RECORD, _set("config", "train", "lr", to=2e-3)), "lr is 0.001"),
    ("rate of the log", edit_lines(LOG, lambda lines: lines[2].update(lr=0.5)), "highest rate"),
    ("a rate of zero", edit_json(RECORD, _set("lr", to=0.0)), "ZeroDivisionError"),
    ("seed", edit_json(RECORD, _set("seed", to=7)), "seed is 7"),
    ("method", edit_json(RECORD, _set("method", to="lora")), "method is lora"),
    ("rank", edit_json(RECORD, _set("rank", to=4)), "rank is 4"),
    ("steps of the configuration", edit_json(RECORD, _set("config", "train", "max_steps", to=400)), "that of run"),
    ("last loss", edit_json(RECORD, _set("losses", "last", to=0.1)), "last loss"),
    ("loss of a step", edit_lines(LOG, lambda lines: lines[0].update(loss=0.1)), "first loss"),
    ("step left out", edit_lines(LOG, lambda lines: lines.pop(1)), "steps in the log"),
    ("task", edit_json(RECORD, _set("task", to="math")), "task is math"),
    ("configuration's text", _write(".yaml", b"a: 1\n"), "config.yaml"),
    ("no answers", _remove(ANSWERS), ""),
    ("run id", edit_json(RECORD, _set("run_id", to="0" * 16)), "name of its folder"),
]  # fmt: skip
"""What is changed, and what is said of it once all hashes fit; empty where nothing in a bundle can contradict it."""


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_single_change_is_named_and_its_run_left_out(
    change: Callable[[Files], None], said: str, bundle: Path, tmp_path: Path
) -> None:
    """First as it is, against the hashes; then with hashes made to fit, against what the files say of each other."""
    files = contents(bundle)
    change(files)
    (name,) = [n for n in {**contents(bundle), **files} if contents(bundle).get(n) != files.get(n)]
    found, damaged = read_all(pack(tmp_path / "changed.zip", files))
    assert len(found) == 1
    (reason,) = damaged.values()
    assert name in reason and str(tmp_path / "changed.zip") in reason
    if not said:
        return
    found, damaged = read_all(pack(tmp_path / "resealed.zip", reseal(files)))
    assert len(found) == 1, "the other run is as good as before"
    assert said in next(iter(damaged.values()))


def test_runs_of_a_version_with_fewer_keys_are_read(bundle: Path, tmp_path: Path) -> None:
    """A key that this version has got since is no change of a record made before it."""
    files, older = contents(bundle), {}
    for path in sorted(name for name in files if name.endswith("/record.json")):
        record = Record.model_validate_json(files[path])
        del record.config["eval"]["limit"]
        named = {**record.config, "eval": {**record.config["eval"]}}
        for key in record.inert:
            section, _, name = key.rpartition(".")
            (named[section] if section else named).pop(name)
        was, record.run_id = record.run_id, sha256_of({k: v for k, v in named.items() if v != {}})[:16]
        files[path] = record.model_dump_json().encode()
        files[path.replace("record.json", "config.yaml")] = configuration_text(record).encode()
        older |= {name.replace(was, record.run_id): content for name, content in files.items() if was in name}
    rest = {name: content for name, content in files.items() if not name.startswith("runs/")}
    found, damaged = read_all(pack(tmp_path / "older.zip", reseal(rest | older)))
    assert len(found) == 2 and not damaged


def test_a_file_that_was_put_in_is_named(bundle: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    folder = next(name for name in files if name.startswith("runs/")).rpartition("/")[0]
    files[f"{folder}/samples/gsm8k.untrained.jsonl.zst"] = b""
    _, damaged = read_all(pack(tmp_path / "more.zip", files))
    assert "gsm8k.untrained.jsonl.zst is not in the manifest" in next(iter(damaged.values()))


def test_scores_are_made_again_for_classes(tmp_path: Path) -> None:
    """A classifier's metric is computed from predictions and labels, whatever verdicts say."""
    record = make_record("lora", 0, {"glue/rte": 0.75}, task="glue/rte", scorer="accuracy", n=4, config={
        "task": {"name": "glue/rte", "train_set": "glue/rte"}, "protocol": {"name": "quick"},
        "method": {"name": "lora", "rank": 8, "alpha": 16.0},
    })  # fmt: skip
    answers = [
        {"index": i, "id": str(i), "target": 1.0, "response": float(i > 0), "scores": {"accuracy": float(i > 0)}}
        for i in range(4)
    ]
    record.run_id = recorded_id(record.config, record.inert)
    folder = write_run(tmp_path / "runs", record, {"glue/rte": answers})
    write(tmp_path / "good.zip", [folder])
    assert opened(tmp_path / "good.zip").problems == {}
    files = contents(tmp_path / "good.zip")
    edit_lines(".zst", lambda rows: rows[0].update(response=1.0))(files)
    (problem,) = opened(pack(tmp_path / "bad.zip", reseal(files))).problems.values()
    assert "accuracy of glue/rte (trained) is 75.00 in the record and 100.00 by its answers" in problem


# ---- the archive itself


def _zip(path: Path, entries: list[tuple[zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for info, content in entries:
            file.writestr(info, content)
    return path


def _entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([(_entry("../out.txt"), b"x")], "leads elsewhere"),
        ([(_entry("/etc/out.txt"), b"x")], "leads elsewhere"),
        ([(_entry("runs/../../out.txt"), b"x")], "leads elsewhere"),
        ([(_entry("runs/a\nb"), b"x")], "leads elsewhere"),
        ([(_entry("runs\\..\\out"), b"x")], "leads elsewhere"),
        ([(_entry("runs/link", stat.S_IFLNK | 0o777), b"/etc/passwd")], "a link"),
        ([(_entry("runs/pipe", stat.S_IFIFO | 0o644), b"")], "a link, or no regular file"),
        ([(_entry("a"), b"1"), (_entry("a"), b"2")], "twice"),
        ([(_entry("a"), b"1"), (_entry("A"), b"2")], "twice"),
        ([(_entry("a"), b"1"), (_entry("a/b"), b"2")], "below a file"),
        ([(_entry("a"), b"1")], "no bundle.json"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_what_a_zip_file_may_not_hold(entries: list[Any], said: str, tmp_path: Path) -> None:
    path = _zip(tmp_path / "bad.zip", entries)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DamagedFile, match=said):
        opened(path)
    assert set(tmp_path.rglob("*")) == before


def _together(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        for info, content in entries:
            file.writestr(info, content)
    return inner.getvalue()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([(_entry("../out.txt"), b"x")], "together.zip: entries.*leads elsewhere"),
        ([(_entry("runs/link", stat.S_IFLNK | 0o777), b"/etc/passwd")], "a link"),
        ([(_entry("bundle.json"), b"{}")], "twice"),
        ([(_entry("Together.zip"), b"PK")], "twice"),
        ([(_entry("bundle.json/x"), b"{}")], "below a file"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_the_zip_file_in_a_bundle_keeps_the_same_rules(entries: list[Any], said: str, tmp_path: Path) -> None:
    path = _zip(tmp_path / "bad.zip", [(_entry("bundle.json"), b"{}"), (_entry("together.zip"), _together(entries))])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DamagedFile, match=said):
        opened(path)
    assert set(tmp_path.rglob("*")) == before
    _zip(path, [(_entry("bundle.json"), b"{}"), (_entry("together.zip"), b"no zip file")])
    with pytest.raises(DamagedFile, match=r"together\.zip: cannot be read as a bundle"):
        opened(path)


def test_declared_sizes_are_held_to(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bundle.read_bytes()
    path = tmp_path / "lies.zip"
    start = content.index(b"PK\x01\x02")  # the first entry of the central directory: its size is at byte 24
    path.write_bytes(content[: start + 24] + (10).to_bytes(4, "little") + content[start + 28 :])
    with pytest.raises(DamagedFile, match="cannot be read as a bundle"):
        opened(path)
    monkeypatch.setenv("SDSBENCH_LIMIT_BUNDLE", "1000")
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"more than 1000 bytes unpacked.*SDSBENCH_LIMIT_BUNDLE"):
        opened(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip file at all", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_bundle_is_one_line(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert main(["table", "grid", "--runs", str(tmp_path / "x.zip")]) == 3
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "x.zip" in text


# ---- making one


def test_a_bundle_of_verdicts_is_small_and_read_as_its_folder(
    bundled_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No question, no answer, no step log; that the questions are the same is known, and verdicts still make scores."""
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
        said = []
        for place in (bundled_runs, path):
            assert main([*table, "--runs", str(place)]) == 0
            said.append(capsys.readouterr().out)
        assert said[0] == said[1]
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


def test_a_bundle_of_verdicts_keeps_what_claims_about_gradients_read(bundled_runs: Path, tmp_path: Path) -> None:
    """Of the step log the lines of probes; the rest of a log that lost its steps is no contradiction."""
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


def test_a_bundle_of_a_plan_says_what_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    put_record(plan, tmp_path / "runs", next(iter(plan.manifest.runs)))
    assert main(["bundle", str(plan.folder), "-o", str(tmp_path / "plan.zip")]) == 0
    assert "is not finished: 1 of its runs have not ended and are not in it" in capsys.readouterr().out


def test_a_plan_goes_along_without_its_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_private_path_or_a_secret_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_failure_messages_and_attempts_hold_no_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


# ---- several origins


def test_runs_of_two_places_stand_in_one_table_with_their_origin(
    bundle: Path, bundled_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run is in both and disagrees: it counts once, and the table says in what."""
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


def test_an_embedded_run_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.execute import execute
    from tests.sweeps.tools import TINY
    from tests.tools import QUIET

    asked: list[Any] = []
    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda _, *where: asked.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where) or [])
    record = execute(compose_run([*TINY, "method=lora", f"output_root={tmp_path}"]), QUIET)
    assert record.status == "done" and not asked


def test_answers_that_no_grader_comes_to_an_end_with_are_not_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a grader to its limit of time, and somebody may have written a million."""
    asked: list[str] = []
    monkeypatch.setattr(consistency, "graders", lambda _: {"fixed": lambda gold, text: asked.append(text)})
    answers = [{"index": i, "response": str(i), "scores": {"fixed": 1.0}} for i in range(1000)]
    (said,) = consistency._graded(None, "math (trained)", answers)  # type: ignore[arg-type]
    assert len(asked) == 3 and "does not come to within its limits" in said
