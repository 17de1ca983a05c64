"""Safe zip files: no entry outside the target folder, no links, no repeated name, no entry larger than it declares.

Hundreds of similar small files can be compressed together: they are stored uncompressed in an inner zip file, which is
one compressed entry of the outer file. The same rules hold for both.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sdsbench.core.containment import contained
from sdsbench.core.errors import DamagedFile
from sdsbench.core.files import refused_by_system, write_atomic
from sdsbench.core.limits import BUNDLE, ENTRIES
from sdsbench.core.reading import kind_of
from sdsbench.core.texts import some_of

NAME = re.compile(r"[A-Za-z0-9_][\w.+=@, ()-]*(/[A-Za-z0-9_][\w.+=@, ()-]*)*", re.ASCII)
"""Accepted entry names: no absolute path, no part that begins with a dot, no control character."""
TOGETHER = "together.zip"
_DATE = (1980, 1, 1, 0, 0, 0)  # earliest date of the zip format; a constant, so that equal content gives equal bytes
_FAULTS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, KeyError)


def pack(path: Path, files: Iterable[tuple[str, bytes]], together: Iterable[tuple[str, bytes]] = ()) -> None:
    """Write these (name, content) entries in order, with a constant date; those of `together` are compressed as one."""
    inner = list(together)
    entries = [*files, *([(TOGETHER, _zipped(inner, zipfile.ZIP_STORED))] if inner else [])]
    write_atomic(path, _zipped(entries, zipfile.ZIP_DEFLATED))


def _zipped(files: Iterable[tuple[str, bytes]], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_STORED if name.endswith(".zst") else method, 9)
    return buffer.getvalue()


def unpack(path: Path, folder: Path) -> list[str]:
    """Extract all entries of a zip file, and of its inner zip file, below `folder`; return their names.

    Raises DamagedFile if a file is no zip file or breaks a rule, before any entry of that file is written.
    """
    names = _unpacked(path, path, folder, [])
    if TOGETHER in names:
        names += _unpacked(folder / TOGETHER, f"{path}: {TOGETHER}", folder, names)
        names.remove(TOGETHER)
        (folder / TOGETHER).unlink()
    return names


def _unpacked(path: Path, shown: object, folder: Path, taken: Iterable[str]) -> list[str]:
    """Extract one zip file. `shown` names it in messages; `taken` are entry names that may not occur again."""
    if not path.is_file():
        raise DamagedFile(f"{shown}: {kind_of(path.lstat().st_mode)} where a bundle belongs.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked(shown, archive.infolist(), taken)
            for name, entry in entries.items():
                target = contained(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_content(archive, entry, shown))
            return list(entries)
    except _FAULTS as error:
        if isinstance(error, OSError) and (refused := refused_by_system(error)):  # of the disk that it is unpacked to
            raise refused from None
        raise DamagedFile(f"{shown}: cannot be read as a bundle ({type(error).__name__}: {error}).") from None


def _checked(shown: object, found: Iterable[zipfile.ZipInfo], taken: Iterable[str]) -> Mapping[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    faults: list[str] = []
    seen = {name.casefold() for name in taken}
    size = 0
    for number, entry in enumerate(found, 1):
        ENTRIES.require(number, shown)
        size += entry.file_size
        BUNDLE.require(size, shown)
        faults += [f"{entry.filename[:100]!r}: {fault}" for fault in _faults(entry)]
        if entry.filename.casefold() in seen:
            faults.append(f"{entry.filename[:100]!r}: twice")
        seen.add(entry.filename.casefold())
        entries[entry.filename] = entry
    for name in entries:
        if any(parent in seen for parent in _parents(name.casefold())):
            faults.append(f"{name[:100]!r}: below a file")
    if faults:
        raise DamagedFile(f"{shown}: entries that a bundle must not have: {some_of(faults, 5, '; ')}.")
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


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, shown: object) -> bytes:
    """The entry's content. zipfile reads no more than the declared size; a longer entry then fails its checksum."""
    with archive.open(entry) as file:
        content = file.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise DamagedFile(f"{shown}: {entry.filename!r} has {len(content)} bytes and declares {entry.file_size}.")
    return content
