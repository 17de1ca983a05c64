"""The folder of one run and its record: results/runs/<run id>/.

record.json     the record (core/record.py), the only file that tables need
config.yaml     the resolved configuration, for people
metrics.jsonl   one line per step, flushed as it is written
samples/        per-question outputs, compressed
adapter/        the trained tensors
checkpoint-N/   the state after step N, while the run is unfinished
tracker.log     output of the process that sends the run's metrics to a tracker
lock            held by the process that works on the run
private.jsonl   host and process of each attempt, full messages of failures; for the owner only, never exported
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sdsbench.core.errors import DamagedFile
from sdsbench.core.file_hash import content_hash
from sdsbench.core.files import write_atomic
from sdsbench.core.hashing import sha256_of
from sdsbench.core.limits import RECORD
from sdsbench.core.reading import first_fault, is_there, parse_json, read_bytes
from sdsbench.core.record import Record


def write_record(folder: Path, record: Record) -> Record:
    """Validate, seal with a checksum and write record.json atomically; returns the sealed record."""
    sealed = Record.model_validate({**record.model_dump(), "checksum": ""})
    sealed.checksum = sealed.seal()
    write_atomic(folder / "record.json", json.dumps(sealed.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    return sealed


def read_record(path: Path) -> Record:
    """The record in a file. Raises DamagedFile if it does not match its schema, its checksum or its folder's name."""
    content = read_bytes(path, RECORD, below=path.parent)
    record = _as_written(content) or _checked(parse_json(content, path), path)
    if path.parent.name != record.run_id and path.parent.resolve().name != record.run_id:
        raise DamagedFile(f"{path}: its run id is {record.run_id}, which is not the name of its folder.")
    return record


def _as_written(content: bytes) -> Record | None:
    """The record in a file that `write_record` wrote, in two thirds of the time of `_checked`; None for any other file.

    Without its white space, such a file is the text whose hash is the checksum. The record is parsed from the hashed
    text, so it is the record that was sealed even if the white space was changed.
    """
    text = b"".join(map(bytes.lstrip, content.split(b"\n"))).replace(b'": ', b'":')
    if b"NaN" in text or b"Infinity" in text:  # fields of any type could hold such a number; `_checked` refuses it
        return None
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return None
    unsealed = text.replace(f'"checksum":"{record.checksum}"'.encode(), b'"checksum":""', 1)
    return record if hashlib.sha256(unsealed).hexdigest() == record.checksum else None


def _checked(tree: Any, path: Path) -> Record:
    try:
        record = Record.model_validate(tree)
    except ValidationError as error:
        raise DamagedFile(f"{path}: not a record of schema version 2: {first_fault(error)}.") from None
    # The hash of the file's own content, not of the record written again: this code may have more keys.
    try:
        held = sha256_of({**tree, "checksum": ""})
    except ValueError as error:  # a number of the configuration that is not finite
        raise DamagedFile(f"{path}: not a record: {error}.") from None
    if record.checksum != held:
        raise DamagedFile(f"{path}: its content does not match its checksum.")
    return record


def find_record(folder: Path, log: Callable[[str], None]) -> Record | None:
    """The record of a run folder; None if the run has not begun.

    A damaged record is logged, renamed to record.damaged-<hash>.json so that it is kept, and treated as absent.
    """
    path = folder / "record.json"
    if not is_there(path):
        return None
    try:
        return read_record(path)
    except DamagedFile as error:
        aside = folder / f"record.damaged-{content_hash(path)[:8]}.json"
        path.rename(aside)
        log(f"{error} It is set aside as {aside.name}; the run starts from its newest checkpoint, or anew.")
        return None
