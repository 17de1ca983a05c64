"""Folders into which bundles were unpacked are removed: after a failure, a change of the file, and a process's end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sdsbench.core.errors import DamagedFile
from sdsbench.results.bundles import temporary
from sdsbench.results.bundles.opened import opened
from tests.results.bundles.tools import contents, pack

READER = """
import os, signal, sys
from pathlib import Path
from sdsbench.results.bundles.opened import opened
print(opened(Path(sys.argv[1])).folder, flush=True)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "waits":
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which this test's processes make their temporary folders."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    temporary._clear.cache_clear()
    return tmp_path / "temporary"


def remaining(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_refused_bundle_leaves_no_folder(bundle: Path, place: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    del files["bundle.json"]
    pack(tmp_path / "none.zip", files)
    for _ in range(3):
        with pytest.raises(DamagedFile):
            opened(tmp_path / "none.zip")
    assert remaining(place) == []


def test_changed_bundle_replaces_the_folder_of_the_old_one(bundle: Path, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "changing.zip"
    for number in range(3):
        files = contents(bundle)
        files["requirements.lock"] = b"x" * number
        pack(path, files)
        found = opened(path)
        assert found is opened(path)
        assert remaining(place) == [found.folder.name]


def test_process_removes_folders_of_killed_processes_and_no_others(bundle: Path, place: Path) -> None:
    def read(how: str) -> str:
        return subprocess.run([sys.executable, "-c", READER, str(bundle), how], capture_output=True, text=True).stdout

    living = subprocess.Popen(
        [sys.executable, "-c", READER, str(bundle), "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert living.stdout is not None
    living_folder = Path(living.stdout.readline().strip())
    dead_folder = Path(read("dies").strip())
    (place / "of_others").mkdir()
    (place / f"{temporary.PREFIX}link").symlink_to(place / "of_others")
    assert dead_folder.is_dir() and living_folder.is_dir()
    ended_folder = Path(read("ends").strip())
    assert not ended_folder.exists() and not dead_folder.exists(), "its own folder and that of the killed process"
    assert living_folder.is_dir() and (place / "of_others").is_dir(), (
        "the folder of a living process, and one that no bundle made"
    )
    living.communicate("")
    assert not living_folder.exists()
