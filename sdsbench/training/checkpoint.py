"""Checkpoints: written atomically, verified on read; each records hashes of the code, weights and data behind it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors.torch import load_file, save_file

from sdsbench.core.errors import DamagedFile
from sdsbench.core.files import sync_folder, write_atomic
from sdsbench.core.limits import MANIFEST
from sdsbench.core.reading import FileContent, first_fault, read_json
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
        write_atomic(temporary / "state.json", json.dumps({**facts, "checksum": _checksum(facts)}))
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for older in all_checkpoints(folder)[1:]:
        shutil.rmtree(older, ignore_errors=True)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder, and its JSON part, whose checksum matched the tensors."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The optimizer step after which it was written."""
        return self.facts["step"]

    @property
    def origin(self) -> dict[str, str]:
        """Hashes of code, weights and data, by name, as passed to `save`."""
        return self.facts["origin"]


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """(newest intact checkpoint or None, messages about damaged ones); damaged checkpoints are renamed, not deleted."""
    remarks: list[str] = []
    for path in all_checkpoints(folder):
        try:
            return Checkpoint(path, _facts(path).model_dump()), remarks
        except (DamagedFile, OSError) as error:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            remarks.append(f"{path.name} is damaged and set aside as {aside.name}: {error}")
    return None, remarks


def load(found: Checkpoint, state: TrainState) -> None:
    """Restore a checkpoint returned by `newest` into `state`; the caller holds the folder's lock."""
    state.load(load_file(found.path / "state.safetensors"), dict(found.facts))


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


def remove_all(folder: Path) -> None:
    """Delete every checkpoint of a run, including damaged ones and partial ones left by killed processes."""
    for pattern in ("checkpoint-*", "damaged-checkpoint-*", ".checkpoint-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


class _Counters(FileContent, strict=True):
    """File format of training.state.Counters."""

    tokens: int = Field(ge=0)
    targets: int = Field(ge=0)
    positions: int = Field(ge=0)
    seconds: float = Field(ge=0)


class _BestStep(FileContent, strict=True):
    """File format of training.best_step.BestStep, without its tensors."""

    step: int = Field(ge=0)
    loss: float
    method: dict[str, Any]


class _Facts(FileContent, strict=True):
    """The JSON part of a checkpoint."""

    origin: dict[str, str]
    sha256: str  # of the tensors' file
    step: int = Field(ge=0)
    counters: _Counters
    method: dict[str, Any]
    group_size: int = Field(ge=1)
    micro_limit: int | None = Field(ge=1)
    best: _BestStep | None = None
    checksum: str  # over all fields above, so that a changed step or counter is detected like a changed tensor


def _checksum(facts: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in facts.items() if key != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(path: Path) -> _Facts:
    """Read a checkpoint's JSON part and verify it and the tensor file. Raises DamagedFile if either differs."""
    raw = read_json(path / "state.json", MANIFEST, below=path.parent)
    try:
        facts = _Facts.model_validate(raw)
    except ValidationError as error:
        raise DamagedFile(f"{path / 'state.json'}: {first_fault(error)}.") from None
    if facts.checksum != _checksum(raw):
        raise DamagedFile(f"{path / 'state.json'}: its content does not match its checksum.")
    if facts.step != _step_of(path):
        raise DamagedFile(f"{path / 'state.json'}: step {facts.step} in a checkpoint of step {_step_of(path)}.")
    tensors = path / "state.safetensors"
    if not os.path.lexists(tensors) or not stat.S_ISREG(tensors.lstat().st_mode):
        raise DamagedFile(f"{tensors}: no regular file.")
    with tensors.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest() == facts.sha256
    if not whole:
        raise DamagedFile(f"{tensors}: its content does not match its checksum.")
    return facts
