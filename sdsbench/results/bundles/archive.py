"""Zip files under rules: no entry outside, no links, no name twice, no size that was not declared."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sdsbench.core.containment import contained
from sdsbench.core.errors import DamagedFile
from sdsbench.core.limits import BUNDLE, ENTRIES

NAME = re.compile(r"[A-Za-z0-9_][\w.+=@, ()-]*(/[A-Za-z0-9_][\w.+=@, ()-]*)*", re.ASCII)
"""Of an entry: no absolute path, no part that begins with a point, no control character."""
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format has: the same content gives the same bytes
_FAULTS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, KeyError)


def pack(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip file of these entries, in this order and without a clock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in files:
                packed = name.endswith((".zst", ".zip"))
                entry = zipfile.ZipInfo(name, _DATE)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content, zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unpack(path: Path, folder: Path) -> list[str]:
    """Put every entry of a zip file below `folder`; returns their names.

    Raises DamagedFile, before anything is written, for a file that is no zip file or breaks a rule.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked(path, archive.infolist())
            for name, entry in entries.items():
                target = contained(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_content(archive, entry, path))
            return list(entries)
    except _FAULTS as error:
        raise DamagedFile(f"{path}: cannot be read as a bundle ({type(error).__name__}: {error}).") from None


def _checked(path: Path, found: Iterable[zipfile.ZipInfo]) -> Mapping[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    faults: list[str] = []
    seen: set[str] = set()
    size = 0
    for number, entry in enumerate(found, 1):
        ENTRIES.require(number, path)
        size += entry.file_size
        BUNDLE.require(size, path)
        faults += [f"{entry.filename[:100]!r}: {fault}" for fault in _faults(entry)]
        if entry.filename.casefold() in seen:
            faults.append(f"{entry.filename[:100]!r}: twice")
        seen.add(entry.filename.casefold())
        entries[entry.filename] = entry
    for name in entries:
        if any(parent in seen for parent in _parents(name.casefold())):
            faults.append(f"{name[:100]!r}: below a file")
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DamagedFile(f"{path}: entries that a bundle must not have: {'; '.join(faults[:5])}{more}.")
    return entries


def _faults(entry: zipfile.ZipInfo) -> Iterator[str]:
    mode = entry.external_attr >> 16
    if not NAME.fullmatch(entry.filename):
        yield "a name that leads elsewhere, or with other letters than names of runs have"
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        yield "a link, or no regular file"
    if entry.flag_bits & 1:
        yield "encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield "packed in another way than by deflate"


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)))


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    """The entry's bytes: as many as it declares. zipfile stops there, and the checksum of a longer one is wrong."""
    with archive.open(entry) as file:
        content = file.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise DamagedFile(f"{path}: {entry.filename!r} has {len(content)} bytes and declares {entry.file_size}.")
    return content
