"""What lies in a run's folder before the run begins, and the rights of what it and everything after it write."""

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


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent.parent / "precious")


PLANTED: list[tuple[str, Callable[[Path], object]]] = [
    ("lock", _link), ("samples", _link), ("adapter", _link), ("probes", _link), ("metrics.jsonl", _link),
    ("record.json", os.mkfifo), ("private.jsonl", os.mkfifo), ("config.yaml", Path.mkdir),
]  # fmt: skip


@pytest.mark.parametrize(("name", "plant"), PLANTED, ids=[name for name, _ in PLANTED])
def test_a_run_writes_through_nothing_and_waits_for_nothing(
    name: str, plant: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lock` as a link overwrote its target, `samples` and `adapter` were written through, a FIFO was waited for."""
    (tmp_path / "precious").mkdir()
    folder = tmp_path / "runs" / run_id(compose_run(WORDS))
    folder.mkdir(parents=True)
    plant(folder / name)
    before = sorted(tmp_path.rglob("*"))
    assert main([*WORDS, f"output_root={tmp_path / 'runs'}"]) == 2
    text = capsys.readouterr().err
    assert str(folder / name) in text and text.count("sdsbench: ") == 1 and "Traceback" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_run_and_all_that_follows_it_write_honours_the_umask(
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
        wanted = 0o750 if path.is_dir() else 0o600 if path.name == "private.jsonl" else 0o640
        assert mode == wanted, f"{path}: {mode:o}"
