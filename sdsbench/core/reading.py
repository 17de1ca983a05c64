"""Files that others may have made, read as data: regular files alone, of limited size, and one error for all faults.

Records, step logs, answers, probes, manifests, results of other tools and bundles are read through here. A link, a
FIFO or a folder where a file belongs is refused and not waited for; what is unpacked is measured while it is unpacked.
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
_SLICE = 1024  # packed bytes at a time: Zstandard makes at most some 32 MiB of them


class FileContent(BaseModel):
    """What a file, or a part of it, holds: no keys beside the declared ones, and no number that is not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def seal(self) -> str:
        """sha256 of its canonical JSON, its field `checksum` left empty."""
        return sha256_of({**self.model_dump(mode="json"), "checksum": ""})


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with what a file holds: `scores.0.value: Input should be a valid number`."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))[:200] or "the whole file"
    return f"{where}: {first['msg']}"


def kind_of(mode: int) -> str:
    """What a file's mode says that it is, where it is no regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def read_bytes(path: Path, limit: Limit, below: Path | None = None) -> bytes:
    """The content of a regular file. `below`: a folder above it between which and the file no link may lie.

    Raises DamagedFile for anything else than such a file, for a larger one and for one that cannot be read.
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
        content = _read(handle, found.st_size + 1)  # room for its size, not for the limit: it is set aside at once
        if len(content) > found.st_size:  # it has grown
            content += _read(handle, limit.value + 1 - len(content))
    finally:
        os.close(handle)
    limit.require(len(content), path)
    return content


def is_there(path: Path | str) -> bool:
    """Whether something lies at a path, a link that leads nowhere too. Also where this user may not look: that is for
    its reader to say, and a run whose folder is closed is not a run less.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def files_in(folder: Path, ending: str) -> list[Path]:
    """The entries of a folder with this ending, by name; none where there is no folder. Raises DamagedFile where this
    user may not look into it.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(ending))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DamagedFile(f"{folder}: cannot be read ({error.strerror}).") from None


def require_file(path: Path) -> None:
    """Raises DamagedFile where something else than a file lies at `path`: a library that opens it would follow a link
    and wait for a FIFO.
    """
    mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG  # that it is missing, its reader says
    if not stat.S_ISREG(mode):
        raise DamagedFile(f"{path}: {kind_of(mode)} where a file belongs.")


def _read(handle: int, most: int) -> bytes:
    """Up to so many bytes of a file, fewer only at its end."""
    content = os.read(handle, most)
    while len(content) < most and (more := os.read(handle, most - len(content))):
        content += more
    return content


def parse_json(content: bytes | str, where: object) -> Any:
    """JSON as plain values. Raises DamagedFile: also for numbers of thousands of digits, hundreds of brackets and half
    of a surrogate pair, which is no text.
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
    """The JSON objects, one a line, of a file that Zstandard packed; `check` says what is wrong with one, or nothing.

    Raises DamagedFile, with the number of the line where one is wrong.
    """
    return rows_of(_decoded(_unpacked(read_bytes(path, limit, below), limit, path), path), check, path)


def rows_of(text: str, check: Callable[[dict[str, Any]], str], path: Path) -> list[dict[str, Any]]:
    """The JSON objects, one a line, of a text; raises DamagedFile as `read_packed_rows` does."""
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
    """Whether a value of JSON is a number that can be computed with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # false for NaN; larger whole numbers are no floats


def whole(value: Any) -> bool:
    """Whether a value of JSON is a whole number from 0 of a size that counts have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
