"""Links and pipes in a run's folder before the run begins, and the permissions of the files that commands write."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id
from tests.sweeps.tools import TINY

WORDS = [*(word for word in TINY if not word.startswith("train.save")), "method=lora"]


def plant_link(path: Path) -> None:
    path.symlink_to(path.parent.parent.parent / "precious")


PLANTED: list[tuple[str, Callable[[Path], object]]] = [
    ("lock", plant_link), ("samples", plant_link), ("adapter", plant_link), ("probes", plant_link),
    ("metrics.jsonl", plant_link), ("record.json", os.mkfifo), ("private.jsonl", os.mkfifo),
    ("config.yaml", Path.mkdir),
]  # fmt: skip


@pytest.mark.parametrize(("name", "plant"), PLANTED, ids=[name for name, _ in PLANTED])
def test_run_neither_writes_through_links_nor_waits_for_pipes(
    name: str, plant: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link must not lead a write to its target, and reading a FIFO would wait for ever."""
    (tmp_path / "precious").mkdir()
    folder = tmp_path / "runs" / run_id(compose_run(WORDS))
    folder.mkdir(parents=True)
    plant(folder / name)
    before = sorted(tmp_path.rglob("*"))
    assert main([*WORDS, f"output_root={tmp_path / 'runs'}"]) == 2
    text = capsys.readouterr().err
    assert str(folder / name) in text and text.count("sdsbench: ") == 1 and "Traceback" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_permissions_of_written_files_honour_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        assert main([*WORDS, "output_root=runs"]) == 0
        (folder,) = Path("runs").iterdir()
        for words in (
            ["plan", *WORDS, "seed=0,1", "--folder", "plan"],
            ["export", str(folder), "exported"],
            ["bundle", "runs", "-o", "all.zip"],
            ["table", "grid", "--runs", "runs", "--output", "tables"],
        ):
            assert main(words) == 0, (words, capsys.readouterr().err)
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.rglob("*")}
    assert len(found) > 20
    for path, mode in found.items():
        expected = 0o750 if path.is_dir() else 0o600 if path.name == "private.jsonl" else 0o640
        assert mode == expected, f"{path}: {mode:o}"
