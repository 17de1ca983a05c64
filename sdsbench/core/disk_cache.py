"""The machine's cache folder: dequantised weights, SVD factors. Everything in it can be rebuilt.

An entry is a folder that is built under a temporary name and renamed. Its seal file holds the key of its inputs and the
size, time and hash of every file. An entry is used only if its seal matches; otherwise it is rebuilt.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sdsbench.core.errors import Unavailable
from sdsbench.core.file_hash import content_hash
from sdsbench.core.lock import owned

SEAL = ".seal.json"
_MOST_BYTES = 2**24  # largest size of a seal
_ADVICE = "Set SDSBENCH_CACHE to a folder that can: weights that packages bring are made into plain files there."


def cache_folder() -> Path:
    """SDSBENCH_CACHE, else XDG_CACHE_HOME/sdsbench, else ~/.cache/sdsbench; made if absent.

    Raises Unavailable if it cannot be created or written.
    """
    base, shared = os.environ.get("SDSBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(base) if base else (Path(shared) if shared else Path.home() / ".cache") / "sdsbench"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise Unavailable(f"no cache folder ({error}). {_ADVICE}") from None
    if not os.access(folder, os.W_OK):
        raise Unavailable(f"the cache folder {folder} cannot be written. {_ADVICE}")
    return folder


def cached(kind: str, name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `kind`/`name` of the cache; `build` fills it if it is missing or does not match its seal.

    `key` must describe all inputs of the content. Of two processes that build the same entry at the same time, the
    first one's is kept, since it may already be in use. A killed process leaves no usable entry behind. Raises
    Unavailable for an entry of another user.
    """
    folder = cache_folder() / kind / name
    if _holds(folder, key):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        (temporary / "new").mkdir()
        build(temporary / "new")
        _seal(temporary / "new", key)
        with owned(folder.parent, wait=True):
            if not _holds(folder, key):
                if folder.is_symlink() or folder.exists():
                    os.rename(folder, temporary / "damaged")
                os.rename(temporary / "new", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _holds(folder: Path, key: str) -> bool:
    """Whether the entry is whole and made from `key`: files of equal size and time are not read again."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    try:
        for path in (folder, *sorted(folder.rglob("*"))):
            if path.lstat().st_uid != os.getuid():
                raise Unavailable(
                    f"{folder.name} of the cache belongs to another user, and is not used. Set SDSBENCH_CACHE to a "
                    "folder of your own."
                )
        seal = folder / SEAL
        if not seal.is_file() or seal.stat().st_size > _MOST_BYTES:
            return False
        sealed = json.loads(seal.read_bytes())
        files = dict(sealed["files"])
        if sealed["key"] != key or set(files) != set(_files(folder)):
            return False
        changed = [name for name, facts in files.items() if _stamp(folder / name) != facts["stamp"]]
        if any(not _stamp(folder / name) or content_hash(folder / name) != files[name]["sha256"] for name in changed):
            return False
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    except FileNotFoundError:  # another process replaces the entry at this moment
        return False
    if changed:  # the same bytes at another time, as a copy has them
        _seal(folder, key)
    return True


def _files(folder: Path) -> list[str]:
    """Names of an entry's files; a link or pipe counts, and no seal names one."""
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if (not p.is_dir() or p.is_symlink()) and p.name != SEAL
    )


def _stamp(path: Path) -> list[int]:
    """Size and time of a regular file; empty for anything else, such as a link."""
    found = path.lstat()
    return [found.st_size, found.st_mtime_ns] if path.is_file() and not path.is_symlink() else []


def _seal(folder: Path, key: str) -> None:
    """Write the seal beside the entry and move it in, so that another process sees neither a part of it nor a file that
    no seal names."""
    paths = {name: folder / name for name in _files(folder)}
    files = {name: {"stamp": _stamp(path), "sha256": content_hash(path)} for name, path in paths.items()}
    with tempfile.NamedTemporaryFile("w", prefix=f".{folder.name}-", dir=folder.parent, delete=False) as file:
        file.write(json.dumps({"key": key, "files": files}, indent=1))
    os.replace(file.name, folder / SEAL)
