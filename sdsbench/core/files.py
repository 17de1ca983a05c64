"""Files that are whole or absent: written beside their place, flushed to disk, renamed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdsbench.core.errors import DiskRefuses, Refused, SdsbenchError, Unavailable

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_OURS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # the disk's only where they are about the folder


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns errors of a full or read-only disk, or of missing rights below `folder`, into DiskRefuses."""
    try:
        yield
    except Exception as error:
        reason = disk_reason(error, folder)
        if reason is None or isinstance(error, DiskRefuses):
            raise
        raise DiskRefuses(
            f"the disk refuses: {reason}. Everything finished is intact; make room or rights and start again."
        ) from None


def disk_reason(error: BaseException, folder: Path) -> str | None:
    """What the disk refused, or None where the error is not the disk's. safetensors keeps only the system's text."""
    if isinstance(error, OSError):
        place = str(error.filename)
        ours = place.startswith(str(folder)) or str(folder).startswith(place)
        return str(error) if error.errno in _DISK or (error.errno in _OURS and ours) else None
    if type(error).__name__ == "SafetensorError" and any(os.strerror(code) in str(error) for code in _DISK):
        return str(error)
    return None


def refused_by_system(error: OSError) -> SdsbenchError | None:
    """The one line for an error of the system that a path of the user's, or its rights, leads to in any command.

    None for others, which are this package's own faults.
    """
    if error.errno in _DISK:
        return DiskRefuses(f"the disk refuses: {error}. Everything finished is intact; make room and start again.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unavailable(f"{error.filename}: {error.strerror}. Accepted: a place that this user may use.")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
        return Refused(f"{str(error.filename)[:200]}: {error.strerror}. Accepted: another path.")
    return None


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content` so that no reader and no crash ever sees a part of it.

    A link at `path` is replaced, not followed. Raises Refused where a folder is there.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    try:
        # Mode 0666 less the umask, as every file that a user makes; a file or link of this name is never written into.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except IsADirectoryError:
        raise Refused(f"{path}: a folder where a file belongs. Move it away.") from None
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
