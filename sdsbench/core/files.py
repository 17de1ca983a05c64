"""Write files atomically (to a temporary file, flushed to disk, then renamed), and recognise errors of the disk."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdsbench.core.errors import DiskRefuses, Refused, SdsbenchError, Unavailable

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_OURS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # errors of the disk only for paths of the folder
_ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "choose a folder that can be written, or mount this one for writing,",
    errno.EFBIG: "choose a disk that takes files of this size, or raise `ulimit -f`,",
    errno.EACCES: "get the right to write there, or choose another folder,",
    errno.EPERM: "get the right to write there, or choose another folder,",
}


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of a full or read-only disk, or of missing rights below `folder`, into DiskRefuses."""
    try:
        yield
    except Exception as error:
        reason = disk_reason(error, folder)
        if reason is None or isinstance(error, DiskRefuses):
            raise
        # safetensors and the write of an open file name no path.
        place = "" if str(folder) in reason or getattr(error, "filename", None) else f" (writing below {folder})"
        raise DiskRefuses(_refusal(f"{reason}{place}", error)) from None


def disk_reason(error: BaseException, folder: Path) -> str | None:
    """The message of an error of the disk; None for other errors. safetensors keeps only the text of system errors."""
    if isinstance(error, OSError):
        place = str(error.filename)
        ours = place.startswith(str(folder)) or str(folder).startswith(place)
        return str(error) if error.errno in _DISK or (error.errno in _OURS and ours) else None
    if type(error).__name__ == "SafetensorError" and any(os.strerror(code) in str(error) for code in _DISK):
        return str(error)
    return None


def _refusal(reason: str, error: BaseException) -> str:
    """The message for an error of the disk, with advice that fits its cause."""
    advice = next((text for code, text in _ADVICE.items() if os.strerror(code) in str(error)), "choose another folder")
    return f"the disk refuses: {reason}. Everything finished is intact; {advice} and start again."


def refused_by_system(error: OSError) -> SdsbenchError | None:
    """A one-line error for a system error that a user's path or missing rights can cause in any command.

    None for other system errors, which are faults of this package.
    """
    if error.errno in _DISK:
        return DiskRefuses(_refusal(str(error), error))
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unavailable(f"{error.filename}: {error.strerror}. Accepted: a place that this user may use.")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
        return Refused(f"{str(error.filename)[:200]}: {error.strerror}. Accepted: another path.")
    return None


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the content of a file so that readers never see a part of it, even after a crash.

    A link at `path` is replaced, not followed. Raises Refused if a folder is there.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    try:
        # Mode 0666 minus the umask, as for any new file of the user; an existing file or link of this name is not used.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except IsADirectoryError:
        raise Refused(f"{path}: a folder where a file belongs. Move it away.") from None
    except OSError as error:
        if error.filename in (None, temporary, str(temporary)) and error.filename2 is None:
            error.filename = str(path)  # an error of a write names no file, and the temporary file's name helps nobody
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
