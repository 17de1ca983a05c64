"""The zip file of a bundle: forbidden entries, wrong sizes and files that are no bundle are refused."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import DamagedFile
from sdsbench.results.bundles.opened import opened


def _write_zip(path: Path, entries: list[tuple[zipfile.ZipInfo, bytes]]) -> Path:
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
    ("entries", "message"),
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
def test_forbidden_zip_entries_are_refused_and_nothing_is_unpacked(
    entries: list[Any], message: str, tmp_path: Path
) -> None:
    path = _write_zip(tmp_path / "bad.zip", entries)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DamagedFile, match=message):
        opened(path)
    assert set(tmp_path.rglob("*")) == before


def _zip_bytes(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        for info, content in entries:
            file.writestr(info, content)
    return inner.getvalue()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(_entry("../out.txt"), b"x")], "together.zip: entries.*leads elsewhere"),
        ([(_entry("runs/link", stat.S_IFLNK | 0o777), b"/etc/passwd")], "a link"),
        ([(_entry("bundle.json"), b"{}")], "twice"),
        ([(_entry("Together.zip"), b"PK")], "twice"),
        ([(_entry("bundle.json/x"), b"{}")], "below a file"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_zip_file_inside_a_bundle_is_held_to_the_same_rules(entries: list[Any], message: str, tmp_path: Path) -> None:
    path = _write_zip(
        tmp_path / "bad.zip", [(_entry("bundle.json"), b"{}"), (_entry("together.zip"), _zip_bytes(entries))]
    )
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DamagedFile, match=message):
        opened(path)
    assert set(tmp_path.rglob("*")) == before
    _write_zip(path, [(_entry("bundle.json"), b"{}"), (_entry("together.zip"), b"no zip file")])
    with pytest.raises(DamagedFile, match=r"together\.zip: cannot be read as a bundle"):
        opened(path)


def test_wrong_declared_size_and_too_large_a_bundle_are_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_file_that_is_no_bundle_gives_one_line(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert main(["table", "grid", "--runs", str(tmp_path / "x.zip")]) == 3
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "x.zip" in text
