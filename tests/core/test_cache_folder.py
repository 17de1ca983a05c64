"""Cache entries are used if their seal matches their key and content, and are built again otherwise."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdsbench.core import disk_cache
from sdsbench.core.disk_cache import SEAL, cached
from sdsbench.core.errors import Unavailable
from sdsbench.models.readers import converted, register_reader

BUILT: list[Path] = []


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path / "cache"))
    BUILT.clear()


def build_entry(folder: Path) -> None:
    BUILT.append(folder)
    save_file({"a": torch.arange(8.0), "b": torch.ones(2, 3)}, folder / "w.safetensors")
    (folder / "more").mkdir()
    (folder / "more" / "config.json").write_text("{}")


def cached_entry(key: str = "made from this") -> Path:
    return cached("kind", "name", key, build_entry)


def flip_a_bit(folder: Path) -> None:
    path = folder / "w.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def move_and_link(folder: Path) -> None:
    path = folder / "w.safetensors"
    shutil.move(path, folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a changed byte": flip_a_bit,
    "a cut file": lambda folder: os.truncate(folder / "w.safetensors", 20),
    "a lost file": lambda folder: (folder / "more" / "config.json").unlink(),
    "a new file": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "a link": move_and_link,
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "no seal": lambda folder: (folder / SEAL).unlink(),
    "a damaged seal": lambda folder: (folder / SEAL).write_text("["),
    "a deeply nested seal": lambda folder: (folder / SEAL).write_text("[" * 100_000),
    "a seal of other files": lambda folder: (folder / SEAL).write_text('{"key": "made from this", "files": {"x": 1}}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_entry_is_built_again(damage: str) -> None:
    folder = cached_entry()
    assert cached_entry() == folder and len(BUILT) == 1
    DAMAGE[damage](folder)
    assert cached_entry() == folder and len(BUILT) == 2
    assert load_file(folder / "w.safetensors")["a"].tolist() == list(range(8))
    assert {path.name for path in folder.iterdir()} == {"w.safetensors", "more", SEAL}
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_entry_with_a_changed_modification_time_is_hashed_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached_entry()
    os.utime(folder / "w.safetensors", (1, 1))
    hashed_paths: list[Path] = []
    content_hash = disk_cache.content_hash
    monkeypatch.setattr(disk_cache, "content_hash", lambda path: hashed_paths.append(path) or content_hash(path))
    assert cached_entry() == folder and len(BUILT) == 1 and hashed_paths
    hashed_paths.clear()
    assert cached_entry() == folder and hashed_paths == []


def test_entry_with_another_key_or_without_seal_is_not_used(tmp_path: Path) -> None:
    """A folder copied from another entry, and one that somebody planted, are built again."""
    folder = cached("kind", "other", "made from that", build_entry)
    shutil.copytree(folder, folder.with_name("name"))
    cached_entry()
    assert len(BUILT) == 2
    planted = tmp_path / "cache" / "models" / "planted"
    planted.mkdir(parents=True)
    save_file({"a": torch.zeros(8)}, planted / "w.safetensors")
    assert load_file(cached("models", "planted", "k", build_entry) / "w.safetensors")["a"].sum() == 28


def test_entry_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cached_entry()
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(Unavailable, match=r"belongs to another user.*SDSBENCH_CACHE"):
        cached_entry()


def read_toy(file: Path, folder: Path) -> None:
    """A reader that raises a library's error, writes a model, or writes nothing, as the file says."""
    if file.read_text() == "memory":
        raise MemoryError("cannot allocate 4 TiB\nfor a tensor")
    if file.read_text() == "good":
        save_file({"a": torch.zeros(2)}, folder / "model.safetensors")


register_reader("toy_reader", f"{__name__}:read_toy")


@pytest.mark.parametrize(("content", "message"), [
    ("memory", "toy.bin: cannot be read: MemoryError: cannot allocate 4 TiB for a tensor"), ("nothing", "it has none"),
])  # fmt: skip
def test_error_of_a_reader_is_one_line_and_leaves_no_entry(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_text(content)
    with pytest.raises(Unavailable) as caught:
        converted("toy_reader", tmp_path / "toy.bin")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "models").iterdir()) == []
    with pytest.raises(Unavailable, match="no such file"):
        converted("toy_reader", tmp_path / "lost.bin")


def test_converted_folder_is_named_after_the_file(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_text("good")
    assert converted("toy_reader", tmp_path / "toy.bin").name.startswith("toy-")


def test_model_planted_in_place_of_a_conversion_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_text("good")
    folder = converted("toy_reader", tmp_path / "toy.bin")
    shutil.rmtree(folder)
    folder.mkdir()
    save_file({"a": torch.ones(9)}, folder / "model.safetensors")
    weights = load_file(converted("toy_reader", tmp_path / "toy.bin") / "model.safetensors")
    assert weights["a"].tolist() == [0.0, 0.0]


def test_seal_holds_hashes_of_files() -> None:
    sealed = json.loads((cached_entry() / SEAL).read_text())["files"]
    content = (cached_entry() / "w.safetensors").read_bytes()
    assert sealed["w.safetensors"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert sealed.keys() == {"w.safetensors", "more/config.json"}


@pytest.mark.parametrize("damaged", [False, True])
def test_entry_that_another_process_built_meanwhile_is_kept(damaged: bool) -> None:
    if damaged:
        flip_a_bit(cached_entry())
    theirs: list[int] = []

    def build(folder: Path) -> None:
        build_entry(folder)
        theirs.append(cached_entry().stat().st_ino)

    assert [cached("kind", "name", "made from this", build).stat().st_ino] == theirs
