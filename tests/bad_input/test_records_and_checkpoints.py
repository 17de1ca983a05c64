"""Damaged records and checkpoints are named and set aside; none is deleted or counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.run_folder import find_record
from sdsbench.training import checkpoint
from tests.bad_input.damage import (
    DAMAGE,
    flip_a_bit,
    folder_instead,
    overwrite,
    pipe_instead,
    set_key,
    truncate,
    write_checkpoint,
)
from tests.sweeps.tools import put_record, tiny_plan

RECORD_DAMAGE = [
    *DAMAGE, set_key("lr", float("nan")), set_key("lr", "fast"), set_key("seed", None), set_key("status", "finished"),
    set_key("scores", [{"value": float("inf")}]), set_key("method", "x" * 1_000_000),
]  # fmt: skip


@pytest.mark.parametrize("damage", RECORD_DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_record_is_reported_by_status_and_set_aside_by_the_next_run(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status` names the record, does not count its run as done and changes nothing."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    names = list(plan.manifest.runs)
    for name in names:
        put_record(plan, tmp_path / "runs", name)
    path = tmp_path / "runs" / names[0] / "record.json"
    damage(path)
    before = path.read_bytes()
    assert main(["status", str(plan.folder)]) == 0
    text = capsys.readouterr().out
    assert "1 done, 1 damaged" in text
    assert f"damaged: {names[0]}" in text
    assert path.read_bytes() == before, "status changes nothing"
    remarks: list[str] = []
    assert find_record(path.parent, remarks.append) is None
    (aside,) = path.parent.glob("record.damaged-*.json")
    assert aside.read_bytes() == before
    assert aside.name in remarks[0]
    assert len(remarks[0]) < 2000


CHECKPOINT_DAMAGE = [
    ("state.safetensors", flip_a_bit), ("state.safetensors", truncate), ("state.safetensors", overwrite(b"")),
    ("state.safetensors", Path.unlink), ("state.safetensors", folder_instead), ("state.safetensors", pipe_instead),
    ("state.json", truncate), ("state.json", overwrite(b"")),
    ("state.json", overwrite(b"null")),
    ("state.json", overwrite(b"[]")), ("state.json", overwrite(b"{}")), ("state.json", overwrite(b"\xff")),
    ("state.json", Path.unlink),
    ("state.json", set_key("step", 10**9)), ("state.json", set_key("step", "4")),
    ("state.json", set_key("group_size", 7)),
    ("state.json", set_key("counters", {"tokens": 5})), ("state.json", set_key("method", {"refreshes": [1]})),
    ("state.json", set_key("origin", {"weights": "other"})), ("state.json", set_key("extra", 1)),
    ("state.json", set_key("sha256", "0" * 64)), ("state.json", set_key("sha256", None)),
    ("state.json", overwrite(b"[" * 100_000)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "damage"), CHECKPOINT_DAMAGE, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_damaged_checkpoint_is_set_aside_and_the_older_one_used(
    file: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    older, newer = write_checkpoint(tmp_path, 2), write_checkpoint(tmp_path, 4)
    damage(newer / file)
    found, remarks = checkpoint.newest(tmp_path)
    assert found is not None and found.path == older
    assert len(remarks) == 1
    assert "checkpoint-4" in remarks[0]
    assert (tmp_path / "damaged-checkpoint-4").is_dir()


@pytest.mark.parametrize("name", ["checkpoint-", "checkpoint-x", "checkpoint-4.old", "checkpoint-\u2603"])
def test_folders_with_similar_names_are_not_taken_for_checkpoints(name: str, tmp_path: Path) -> None:
    intact = write_checkpoint(tmp_path, 2)
    (tmp_path / name).mkdir()
    found, _ = checkpoint.newest(tmp_path)
    assert found is not None and found.path == intact
