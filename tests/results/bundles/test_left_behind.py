"""What bundles are unpacked into goes: with a bundle that is none, a changed file, and the process, also killed."""

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
    """A folder of temporary folders."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    temporary._clear.cache_clear()
    return tmp_path / "temporary"


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_nothing_is_left_of_a_bundle_that_is_none(bundle: Path, place: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    del files["bundle.json"]
    pack(tmp_path / "none.zip", files)
    for _ in range(3):
        with pytest.raises(DamagedFile):
            opened(tmp_path / "none.zip")
    assert left(place) == []


def test_a_changed_file_takes_the_old_ones_place(bundle: Path, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "changing.zip"
    for number in range(3):
        files = contents(bundle)
        files["requirements.lock"] = b"x" * number
        pack(path, files)
        found = opened(path)
        assert found is opened(path)
        assert left(place) == [found.folder.name]


def test_a_process_removes_what_killed_ones_left_and_no_other(bundle: Path, place: Path) -> None:
    def read(how: str) -> str:
        return subprocess.run([sys.executable, "-c", READER, str(bundle), how], capture_output=True, text=True).stdout

    living = subprocess.Popen(
        [sys.executable, "-c", READER, str(bundle), "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert living.stdout is not None
    its = Path(living.stdout.readline().strip())
    dead = Path(read("dies").strip())
    (place / "of_others").mkdir()
    (place / f"{temporary.PREFIX}link").symlink_to(place / "of_others")
    assert dead.is_dir() and its.is_dir()
    ended = Path(read("ends").strip())
    assert not ended.exists() and not dead.exists(), "its own, and what the killed one left"
    assert its.is_dir() and (place / "of_others").is_dir(), "a living process's, and what is no folder of ours"
    living.communicate("")
    assert not its.exists()
