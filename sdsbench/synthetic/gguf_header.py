"""Checking that a GGUF file's header stays within the file, before the gguf library reads it.

The library trusts the stored length of an array and would read past the end of the file until memory is full.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from sdsbench.core.errors import Unavailable

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # GGUF type number -> bytes of a number
_TEXT, _ARRAY = 8, 9
_DEEPEST = 4  # maximum nesting of arrays; real files have one level


def check_header(path: Path) -> None:
    """Raises Unavailable if a key, text or array extends beyond the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Unavailable(f"{path.name}: not a GGUF file")
        try:
            _version, _tensors, keys = struct.unpack("<IQQ", file.read(20))
            for _ in range(keys):  # terminates even for huge `keys`: each key takes bytes, and the file's end raises
                _skip(file, size, _number(file, "<Q"))
                _skip_value(file, size, _number(file, "<I"), 0)
        except (struct.error, ValueError) as error:
            raise Unavailable(f"{path.name}: its keys go beyond the end of the file, or are none ({error})") from None


def _skip_value(file: BinaryIO, size: int, kind: int, depth: int) -> None:
    if kind == _TEXT:
        _skip(file, size, _number(file, "<Q"))
    elif kind == _ARRAY:
        inner, length = _number(file, "<I"), _number(file, "<Q")
        if inner in _SIZES:
            _skip(file, size, length * _SIZES[inner])
        elif depth == _DEEPEST:
            raise ValueError(f"arrays in arrays, more than {_DEEPEST} deep")
        else:
            for _ in range(length):  # terminates likewise
                _skip_value(file, size, inner, depth + 1)
    elif kind in _SIZES:
        _skip(file, size, _SIZES[kind])
    else:
        raise ValueError(f"type {kind}")


def _number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])


def _skip(file: BinaryIO, size: int, count: int) -> None:
    if file.tell() + count > size:
        raise ValueError(f"{count:,} bytes where {size - file.tell():,} are left")
    file.seek(count, 1)
