"""Checkpoints: whole or absent, checked on read; each says which code, weights and data its state is made from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from sdsbench.core.files import sync_folder, write_atomic
from sdsbench.training.state import TrainState


def save(folder: Path, state: TrainState, made_from: Mapping[str, str]) -> None:
    """Write checkpoint-<step> and remove older ones. `made_from`: hashes of code, weights and data, by name."""
    final, temporary = folder / f"checkpoint-{state.step}", folder / f".checkpoint-{state.step}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file(state.tensors(), temporary / "state.safetensors")
        with (temporary / "state.safetensors").open("rb+") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts = {"origin": dict(made_from), "sha256": digest, **state.facts()}
        write_atomic(temporary / "state.json", json.dumps(facts))
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for older in all_checkpoints(folder)[1:]:
        shutil.rmtree(older, ignore_errors=True)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and remarks on damaged ones, which are set aside."""
    remarks: list[str] = []
    for path in all_checkpoints(folder):
        if _facts(path) is not None:
            return path, remarks
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        remarks.append(f"{path.name} is damaged (checksum); set aside as {aside.name}")
    return None, remarks


def load(path: Path, state: TrainState) -> None:
    """Restore a checkpoint that `newest` found into `state`."""
    facts = _facts(path)
    assert facts is not None, "newest() checked it"
    state.load(load_file(path / "state.safetensors"), facts)


def origin(path: Path) -> dict[str, str]:
    """What a whole checkpoint's state is made from, as `save` was told."""
    return json.loads((path / "state.json").read_text())["origin"]


def step_of(path: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(path.name.removeprefix("checkpoint-"))


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=step_of, reverse=True)


def remove_all(folder: Path) -> None:
    """Delete every checkpoint of a run, damaged ones and leftovers of killed writers included."""
    for pattern in ("checkpoint-*", "damaged-checkpoint-*", ".checkpoint-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _facts(path: Path) -> dict[str, Any] | None:
    """The JSON part of a checkpoint, or None where the checkpoint is damaged."""
    try:
        facts = json.loads((path / "state.json").read_text())
        with (path / "state.safetensors").open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"]
        return facts if whole and {"origin", "step", "counters", "method", "group_size"} <= facts.keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
