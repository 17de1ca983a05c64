"""Damage to single files, the assertion that a command refuses them, and the input that several tests damage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdsbench.__main__ import main
from sdsbench.training import checkpoint


def assert_refused(capsys: pytest.CaptureFixture[str], words: list[str], code: int, *expected: str) -> None:
    """The command ends with `code` and one short message that contains all of `expected`."""
    capsys.readouterr()
    assert main(words) == code
    text = capsys.readouterr().err
    assert text.startswith("sdsbench: ")
    assert text.count("sdsbench: ") == 1
    assert "Traceback" not in text
    assert len(text) < 4000, "a message, not a dump"
    for part in expected:
        assert part in text


def file_contents(folder: Path) -> dict[str, bytes]:
    """Path -> content of every file below the folder."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flip_a_bit(path: Path) -> None:
    """Flip the lowest bit of the middle byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Cut the second half off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    """Whoever opens a named pipe waits until somebody writes into it."""
    path.unlink()
    os.mkfifo(path)


def set_key(key: str, value: object) -> Callable[[Path], None]:
    """Damage that sets one top-level key of a JSON file and leaves the checksum as it was."""

    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    change.__name__ = f"{key}={str(value)[:20]}"
    return change


def overwrite(content: bytes) -> Callable[[Path], None]:
    """Damage that replaces a file's whole content."""

    def write(path: Path) -> None:
        path.write_bytes(content)

    write.__name__ = f"content={content[:12]!r}"
    return write


DAMAGE = [
    flip_a_bit, truncate, overwrite(b""), overwrite(b"null"), overwrite(b"[]"), overwrite(b"{}"),
    overwrite(b"\xff\xfe\x00"), overwrite(b"\x1f\x8b compressed"), overwrite('{"run_id": "\u2603"}'.encode()),
    overwrite(b"[" * 100_000),
    set_key("schema_version", 99), set_key("checksum", "0" * 64), set_key("extra", 1),
]  # fmt: skip


CHECKPOINT_ORIGIN = {"code: core": "a", "weights": "b", "data: gsm8k train": "c"}


def write_checkpoint(folder: Path, step: int) -> Path:
    """A checkpoint of one tensor whose checksums match."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"optimizer.x": torch.arange(4.0)}, path / "state.safetensors")
    digest = hashlib.sha256((path / "state.safetensors").read_bytes()).hexdigest()
    counters = {"tokens": 1, "targets": 1, "positions": 1, "seconds": 0.5}
    facts = {"origin": CHECKPOINT_ORIGIN, "sha256": digest, "step": step, "counters": counters, "method": {}}
    facts |= {"group_size": 1, "micro_limit": None}
    (path / "state.json").write_text(json.dumps({**facts, "checksum": checkpoint._checksum(facts)}))
    return path
