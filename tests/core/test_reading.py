"""Reading files that others may have made, links and pipes in their place, and permissions of written files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sdsbench.core import private, samples, step_log
from sdsbench.core.containment import contained, require_plain
from sdsbench.core.errors import ConfigError, DamagedFile, Refused
from sdsbench.core.files import write_atomic
from sdsbench.core.limits import ANSWERS, RECORD
from sdsbench.core.lock import owned, owner_lives
from sdsbench.core.reading import parse_json, read_bytes, read_json
from sdsbench.core.run_folder import read_record
from tests.results.tables.fixtures import make_record, write_run


@pytest.fixture(params=[0o077, 0o022, 0o000], ids=lambda mask: f"umask {mask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_written_files_and_folders_honour_the_umask(umask: int, tmp_path: Path) -> None:
    write_atomic(tmp_path / "folder" / "file", "text")
    with owned(tmp_path / "run"), step_log.StepLog(tmp_path / "run" / "metrics.jsonl") as log:
        log.write("train", 1, loss=1.0)
    for path in (tmp_path / "folder" / "file", tmp_path / "run" / "lock", tmp_path / "run" / "metrics.jsonl"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    private.keep(tmp_path, host="here")
    assert stat.S_IMODE((tmp_path / private.FILE).stat().st_mode) == 0o600 & ~umask


# ---- writing

PLANT: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to(path.parent.parent / "target"),
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", PLANT)
@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "private.jsonl", "record.json", "config.yaml"])
def test_run_folder_with_a_link_pipe_or_folder_in_place_of_a_file_is_refused(
    name: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "target").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    PLANT[kind](folder / name)
    with pytest.raises(Refused, match=name):
        require_plain(folder)
    if name == "lock":
        assert not owner_lives(folder)
        with pytest.raises(Refused, match="lock"), owned(folder):
            pass
    assert (tmp_path / "target").read_text() == "precious"


@pytest.mark.parametrize("name", ["samples", "adapter", "probes", "checkpoint-3"])
def test_run_folder_with_a_linked_subfolder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=name):
        require_plain(tmp_path / "run")


def test_folder_of_runs_may_be_a_link_but_a_run_folder_may_not(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    (tmp_path / "runs" / "0123456789abcdef").mkdir()
    require_plain(tmp_path / "runs" / "0123456789abcdef")
    (tmp_path / "scratch" / "fedcba9876543210").symlink_to(tmp_path)
    with pytest.raises(Refused, match="a link"):
        require_plain(tmp_path / "runs" / "fedcba9876543210")


def test_atomic_write_replaces_a_link_and_refuses_a_folder(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "target").read_text() == "precious" and (tmp_path / "link").read_text() == "new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused, match="a folder where a file belongs"):
        write_atomic(tmp_path / "folder", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "target"], "nothing is left behind"
    (tmp_path / "log").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        step_log.StepLog(tmp_path / "log")


@pytest.mark.parametrize("part", ["../out", "/etc/passwd", "a/../../out", "", ".", "a\nb", "link/x"])
def test_path_out_of_the_root_is_refused(part: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(Refused):
        contained(root, part)
    assert contained(root, "a", "b.json") == root / "a" / "b.json"


# ---- reading


@pytest.mark.parametrize("kind", PLANT)
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("{}")
    (tmp_path / "run").mkdir()
    PLANT[kind](tmp_path / "run" / "record.json")
    with pytest.raises(DamagedFile, match=r"record\.json: (cannot be read \(a link|.* where a file belongs)"):
        read_record(tmp_path / "run" / "record.json")


def test_answers_below_a_linked_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    samples.write(tmp_path / "elsewhere" / "gsm8k.trained.jsonl.zst", [{"index": 0}])
    (tmp_path / "run" / "samples").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedFile, match="is a link"):
        samples.read(tmp_path / "run" / "samples" / "gsm8k.trained.jsonl.zst")


def test_size_limit_holds_for_unpacked_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are a file below 256 KiB that would unpack to 1 GB."""
    path = tmp_path / "samples" / "bomb.trained.jsonl.zst"
    path.parent.mkdir()
    packer = zstandard.ZstdCompressor().compressobj()
    chunk = b"0" * 2**20
    path.write_bytes(b"".join(packer.compress(chunk) for _ in range(2 * ANSWERS.value // 2**20)) + packer.flush())
    assert path.stat().st_size < 2**18
    with pytest.raises(DamagedFile, match=f"more than {ANSWERS.value} bytes unpacked.*{ANSWERS.key}"):
        samples.read(path)
    (tmp_path / "record.json").write_bytes(b"{}" + b" " * 100)
    monkeypatch.setenv(RECORD.key, "50")
    with pytest.raises(DamagedFile, match="more than 50 bytes, the limit"):
        read_bytes(tmp_path / "record.json", RECORD)
    monkeypatch.setenv(RECORD.key, "much")
    with pytest.raises(ConfigError, match=r"SDSBENCH_LIMIT_RECORD='much'.*whole number of bytes"):
        read_bytes(tmp_path / "record.json", RECORD)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "9" * 5000, '"\\ud800"', "nul"], ids=lambda text: text[:8])
def test_invalid_json_is_a_short_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DamagedFile, match=r"x\.json: not JSON") as caught:
        read_json(tmp_path / "x.json", RECORD)
    assert len(str(caught.value)) < 500


ANSWER = {"index": 0, "id": "0", "prompt": "p", "target": "t", "response": "r", "scores": {"flexible": 1.0}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (1, "not an object"),
        ([], "not an object"),
        ({}, "index"),
        (ANSWER | {"index": "0"}, "index"),
        (ANSWER | {"index": 10**40}, "index"),
        (ANSWER | {"scores": [1]}, "scores"),
        (ANSWER | {"scores": {"flexible": "yes"}}, "scores"),
        (ANSWER | {"scores": {"flexible": 10**400}}, "scores"),
        (ANSWER | {"response": {"text": "r"}}, "response"),
        (ANSWER | {"truncated": 1}, "truncated"),
        (ANSWER | {"prompt": None}, "prompt"),
    ],
    ids=str,
)
def test_answers_with_wrong_types_or_trailing_bytes_are_refused(row: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "samples" / "gsm8k.trained.jsonl.zst"
    path.parent.mkdir()
    lines = f"{json.dumps(ANSWER)}\n{json.dumps(row)}\n".encode()
    path.write_bytes(zstandard.ZstdCompressor().compress(lines))
    with pytest.raises(DamagedFile, match=f"line 2: {message}"):
        samples.read(path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(DamagedFile, match="more bytes follow"):
        samples.read(path)


@pytest.mark.parametrize(
    "line",
    ["1", "{}", '{"kind": "train"}', '{"kind": "train", "step": 1}', '{"kind": 1, "step": 1}',
     '{"kind": "probe", "step": -1}', '{"kind": "method", "step": 1, "refreshes": [1]}',
     '{"kind": "eval", "step": 1, "stage": "trained"}', '{"kind": "train", "step": 1, "loss": "low"}', "{"],
)  # fmt: skip
def test_invalid_step_line_is_ignored_at_the_end_and_refused_elsewhere(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"kind": "train", "step": 1, "loss": 2.0}\n'
    path.write_text(good + line)
    assert step_log.read(path) == [{"kind": "train", "step": 1, "loss": 2.0}]
    path.write_text(good + line + "\n" + good)
    with pytest.raises(DamagedFile, match=r"metrics.jsonl, line 2: "):
        step_log.read(path)


def test_public_text_removes_paths_user_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "host", lambda: "node-17")
    monkeypatch.setattr(private, "user", lambda: "alice")
    text = (
        "data set gsm8k: /data/alice/sets/gsm8k/train.parquet: no such file; "
        f"see {Path.home() / 'notes.txt'}, /scratch/tmp/x.json and https://example.org/a/b of alice on node-17"
    )
    made = private.public_text(text, {"data.root": "/data/alice/sets"})
    assert made == (
        "data set gsm8k: (data.root)/gsm8k/train.parquet: no such file; "
        "see ~/notes.txt, (...)/x.json and https://example.org/a/b of (user) on (host)"
    )


def test_parsed_json_equals_that_of_python() -> None:
    """Compare floats to the last bit, large whole numbers, texts, byte order marks and repeated keys."""
    generator = random.Random(0)
    floats = [struct.unpack("d", generator.randbytes(8))[0] for _ in range(20_000)]
    numbers = [*(value for value in floats if math.isfinite(value)), 2**63, -(2**70), 5e-324, 1e16, 0.1, -0.0]
    text = json.dumps({"numbers": numbers, "texts": ["é", "\x7f", "\U0001f600", '"\\/']})
    for content in (text, text.encode(), b"\xef\xbb\xbf" + text.encode()):
        assert repr(parse_json(content, "here")) == repr(json.loads(text))
    assert parse_json('{"a": 1, "a": 2}', "here") == {"a": 2}


@pytest.mark.parametrize(
    "form",
    [
        {"indent": 1, "sort_keys": True},
        {"indent": 4},
        {"separators": (",", ":")},
        {"indent": 1, "sort_keys": True, "ensure_ascii": False},
    ],
    ids=str,
)
def test_checksum_of_a_record_ignores_the_layout_of_its_file(form: Any, tmp_path: Path) -> None:
    config = {"method": {"note": 'é ": x'}, "train": {"lr": 1e-05, "rate": 1e16, "seed": 2**70}}
    for number, more in enumerate(({}, config)):
        record = make_record("lora", number, {"gsm8k": 0.25}, config=more)
        path = write_run(tmp_path, record) / "record.json"
        written = read_record(path)
        path.write_text(json.dumps(json.loads(path.read_text()), **form))
        assert read_record(path) == written
        changed = json.loads(path.read_text())
        changed["scores"][0]["value"] = 0.26
        path.write_text(json.dumps(changed, **form))
        with pytest.raises(DamagedFile, match="does not match its checksum"):
            read_record(path)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_record_with_a_non_finite_number_is_refused_despite_a_matching_checksum(number: float, tmp_path: Path) -> None:
    """The number lies in the configuration, where any value is allowed; the checksum is that of the written text."""
    path = write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.25})) / "record.json"
    tree = json.loads(path.read_text())
    tree["config"]["note"], tree["checksum"] = number, ""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    tree["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(tree, sort_keys=True, indent=1, ensure_ascii=False))
    with pytest.raises(DamagedFile, match=r"record\.json: not a record"):
        read_record(path)
