"""Reading the .wandb file of an offline W&B run: last logged values and configuration.

The file is a LevelDB log of protobuf messages: 7 bytes of header, then blocks of 32 KiB. A record is a checksum
(4 bytes), a length (2), a kind (1: whole, 2: first, 3: middle, 4: last part) and data; no record header crosses a
block boundary. Parsing the messages needs the package wandb.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.limits import STEPS
from sdsbench.core.reading import read_bytes

_HEADER, _BLOCK, _HEAD = 7, 32 * 1024, struct.Struct("<IHB")
_WHOLE, _LAST = 1, 4


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(summary, config) of a run, nested keys joined by dots; of a truncated file, what it holds.

    Raises Unavailable if wandb is not installed, DamagedFile for another format or a wrong checksum.
    """
    try:
        from wandb.proto import wandb_internal_pb2
    except ImportError:
        raise Unavailable(
            f"{path}: reading an offline run needs W&B's package: pip install 'sdsbench[wandb]'"
        ) from None
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for data in _records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        which = record.WhichOneof("record_type")
        if which == "run":
            _take(config, record.run.config.update)
        elif which == "config":
            _take(config, record.config.update)
        elif which == "history":
            _take(summary, record.history.item)
        elif which == "summary":
            _take(summary, record.summary.update)
    return summary, config


def _take(target: dict[str, Any], items: Any) -> None:
    for item in items:
        target[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)


def _records(path: Path) -> Iterator[bytes]:
    content = read_bytes(path, STEPS)
    if content[:4] != b":W&B":
        raise DamagedFile(f"{path}: not a .wandb file")
    at, parts = _HEADER, list[bytes]()
    while at + _HEAD.size <= len(content):
        room = _BLOCK - at % _BLOCK
        if room < _HEAD.size:
            at += room
            continue
        checksum, length, kind = _HEAD.unpack_from(content, at)
        data = content[at + _HEAD.size : at + _HEAD.size + length]
        if kind == 0 or len(data) < length:  # the run was killed here
            return
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            raise DamagedFile(f"{path}: wrong checksum at byte {at}")
        at += _HEAD.size + length
        parts.append(data)
        if kind in (_WHOLE, _LAST):
            yield b"".join(parts)
            parts.clear()
