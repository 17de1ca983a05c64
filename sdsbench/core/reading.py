"""Read files that others may have written: only regular files of limited size; every fault raises DamagedFile.

Records, step logs, answers, probes, manifests, results of other tools and bundles are read by these functions. A link,
FIFO or folder in place of a file is refused without waiting for it. The size of compressed content is checked while it
is unpacked.
"""

from __future__ import annotations

import os
import stat
from codecs import BOM_UTF8
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import zstandard
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from sdsbench.core.errors import DamagedFile
from sdsbench.core.hashing import sha256_of
from sdsbench.core.limits import Limit

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link",
          stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}  # fmt: skip
_SLICE = 1024  # packed bytes at a time, which Zstandard unpacks to some 32 MiB at most


class FileContent(BaseModel):
    """Base of models of a file's content, or a part of it: undeclared keys and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def seal(self) -> str:
        """sha256 of the canonical JSON, with an empty field `checksum`."""
        return sha256_of({**self.model_dump(mode="json"), "checksum": ""})


def first_fault(error: ValidationError) -> str:
    """The first error of a validation as text: `scores.0.value: Input should be a valid number`."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))[:200] or "the whole file"
    return f"{where}: {first['msg']}"


def kind_of(mode: int) -> str:
    """The kind of something that is not a regular file, in words, from its mode."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def read_bytes(path: Path, limit: Limit, below: Path | None = None) -> bytes:
    """The content of a regular file. `below`: a folder above the file; no folder between the two may be a link.

    Raises DamagedFile if it is not a regular file, is larger than `limit` or cannot be read.
    """
    if below is not None:
        for folder in takewhile(lambda folder: folder != below, path.parents):
            if folder.is_symlink():
                raise DamagedFile(f"{path}: {folder} is a link; links inside a run's folder are not followed.")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        what = "a link, which is not followed" if os.path.islink(path) else getattr(error, "strerror", None) or error
        raise DamagedFile(f"{path}: cannot be read ({what}).") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise DamagedFile(f"{path}: {kind_of(found.st_mode)} where a file belongs.")
        limit.require(found.st_size, path)
        content = _read(handle, found.st_size + 1)  # memory is allocated for the file's size, not for the limit
        if len(content) > found.st_size:  # the file has grown
            content += _read(handle, limit.value + 1 - len(content))
    finally:
        os.close(handle)
    limit.require(len(content), path)
    return content


def is_there(path: Path | str) -> bool:
    """Whether anything exists at a path, broken links included. True also if this user may not look there: the error is
    then raised by the reader, and a run in such a folder is not overlooked.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def files_in(folder: Path, ending: str) -> list[Path]:
    """The entries of a folder whose names have this ending, sorted; empty if there is no folder. Raises DamagedFile if
    this user may not list it.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(ending))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DamagedFile(f"{folder}: cannot be read ({error.strerror}).") from None


def require_file(path: Path) -> None:
    """Raise DamagedFile if something other than a regular file is at `path`: a library that opens it would follow a
    link or wait for a FIFO.
    """
    mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG  # the reader reports a missing file
    if not stat.S_ISREG(mode):
        raise DamagedFile(f"{path}: {kind_of(mode)} where a file belongs.")


def _read(handle: int, most: int) -> bytes:
    """Read up to `most` bytes of a file; fewer only at its end."""
    content = os.read(handle, most)
    while len(content) < most and (more := os.read(handle, most - len(content))):
        content += more
    return content


def parse_json(content: bytes | str, where: object) -> Any:
    """JSON as plain values. Raises DamagedFile, also for numbers of thousands of digits, brackets nested hundreds deep
    and half of a surrogate pair, which cannot be encoded as text.
    """
    try:
        return from_json(content.removeprefix(BOM_UTF8) if isinstance(content, bytes) else content)
    except ValueError as error:
        raise DamagedFile(f"{where}: not JSON ({' '.join(str(error).split())[:200]}).") from None


def read_json(path: Path, limit: Limit, below: Path | None = None) -> Any:
    """The JSON in a file. Raises DamagedFile."""
    return parse_json(read_bytes(path, limit, below), path)


def read_text(path: Path, limit: Limit, below: Path | None = None) -> str:
    """The UTF-8 text of a file. Raises DamagedFile."""
    return _decoded(read_bytes(path, limit, below), path)


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from None


def read_packed_rows(
    path: Path, limit: Limit, check: Callable[[dict[str, Any]], str], below: Path | None = None
) -> list[dict[str, Any]]:
    """The JSON objects, one per line, of a file compressed by Zstandard.

    `check` returns what is wrong with an object, or an empty text. Raises DamagedFile with the number of a wrong line.
    """
    return rows_of(_decoded(_unpacked(read_bytes(path, limit, below), limit, path), path), check, path)


def rows_of(text: str, check: Callable[[dict[str, Any]], str], path: Path) -> list[dict[str, Any]]:
    """The JSON objects, one per line, of a text; raises DamagedFile as `read_packed_rows` does."""
    rows = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        row = parse_json(line, f"{path}, line {number}")
        wrong = check(row) if isinstance(row, dict) else "not an object of keys and values"
        if wrong:
            raise DamagedFile(f"{path}, line {number}: {wrong}.")
        rows.append(row)
    return rows


def _unpacked(packed: bytes, limit: Limit, path: Path) -> bytes:
    stream = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
    parts: list[bytes] = []
    size = 0
    try:
        for start in range(0, len(packed), _SLICE):
            if stream.eof:
                break
            parts.append(stream.decompress(packed[start : start + _SLICE]))
            size += len(parts[-1])
            limit.require(size, path)
    except zstandard.ZstdError as error:
        raise DamagedFile(f"{path}: not packed by Zstandard ({error}).") from None
    if not stream.eof:
        raise DamagedFile(f"{path}: cut short.")
    if stream.unused_data:
        raise DamagedFile(f"{path}: more bytes follow its end.")
    return b"".join(parts)


def finite(value: Any) -> bool:
    """Whether a JSON value is a finite number, of a size below 1e300."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # False for NaN; larger whole numbers cannot be converted to a float


def whole(value: Any) -> bool:
    """Whether a JSON value is a whole number from 0 to below 2^63."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
