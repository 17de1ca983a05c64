"""Opening a bundle: unpack it for this process and check manifest, records and answers against each other.

The files lie in a temporary folder of the process (temporary.py); messages name the bundle instead of that folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sdsbench.core.errors import DamagedFile
from sdsbench.core.limits import MANIFEST
from sdsbench.core.reading import read_bytes
from sdsbench.results.bundles import archive, temporary
from sdsbench.results.bundles.manifest import FILE, RUNS, BundleManifest


@dataclass(frozen=True)
class Bundle:
    """An open bundle. `problems`: run id -> what was found changed; files of no run have their own name as key."""

    path: Path
    folder: Path
    manifest: BundleManifest
    problems: dict[str, list[str]]


_Stamp = tuple[int, int, int]  # size, time and inode of a bundle's file
_KNOWN: dict[Path, tuple[_Stamp, Bundle]] = {}  # by the bundle's path
_OPEN: dict[Path, Bundle] = {}  # by folder


def opened(path: Path) -> Bundle:
    """Unpack the bundle `path`, once per process; a file that has changed since then is unpacked again.

    Raises DamagedFile if the file is no bundle; nothing of it stays on disk.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read ({error.strerror}).") from None
    stamp = found.st_size, found.st_mtime_ns, found.st_ino
    if path in _KNOWN:
        if _KNOWN[path][0] == stamp:
            return _KNOWN[path][1]
        _, old = _KNOWN.pop(path)
        del _OPEN[old.folder]
        temporary.remove(old.folder)
    folder = temporary.folder()
    try:
        bundle = _unpacked(path, folder)
        from sdsbench.results.bundles import consistency  # slow import: loads all tasks and methods

        _KNOWN[path], _OPEN[folder] = (stamp, bundle), bundle
        for run in sorted((folder / RUNS).glob("*")):
            if run.name not in bundle.problems and (wrong := consistency.contradictions(run, packed=True)):
                bundle.problems[run.name] = wrong
    except BaseException:
        _KNOWN.pop(path, None)
        _OPEN.pop(folder, None)
        temporary.remove(folder)
        raise
    return bundle


def _unpacked(path: Path, folder: Path) -> Bundle:
    names = set(archive.unpack(path, folder))
    if FILE not in names:
        raise DamagedFile(f"{path}: no bundle of sdsbench: it has no {FILE}.")
    manifest = BundleManifest.read(read_bytes(folder / FILE, MANIFEST), path)
    problems: dict[str, list[str]] = {}
    for name in sorted({*manifest.files, *names} - {FILE}):
        if change := _change(folder, name, manifest, names):
            problems.setdefault(_run_of(name) or name, []).append(change)
    return Bundle(path, folder, manifest, problems)


def _change(folder: Path, name: str, manifest: BundleManifest, names: set[str]) -> str:
    if name not in names:
        return f"{name} is missing"
    if name not in manifest.files:
        return f"{name} is not in the manifest"
    content = (folder / name).read_bytes() if archive.NAME.fullmatch(name) else b""
    same = hashlib.sha256(content).hexdigest() == manifest.files[name].sha256
    return "" if same else f"{name} is not the file of the manifest (sha256)"


def _run_of(name: str) -> str | None:
    """The id of the run that a bundle's file belongs to; None for files of no run."""
    parts = name.split("/")
    return parts[1] if parts[0] == RUNS and len(parts) > 2 else None


def bundle_of(folder: Path) -> Bundle | None:
    """The open bundle that contains a run folder; None if there is none."""
    return _OPEN.get(folder.parent.parent) if _OPEN else None


def require_sound(run: Path) -> None:
    """Raises DamagedFile if the run comes from a bundle and any of its files was found changed."""
    bundle = bundle_of(run)
    if bundle is not None and run.name in bundle.problems:
        raise DamagedFile(f"{run}: changed since it was made: {'; '.join(bundle.problems[run.name])}.")


def shown(text: str) -> str:
    """The text with each open bundle's temporary folder replaced by the bundle's own path."""
    for folder, bundle in _OPEN.items():
        text = text.replace(str(folder), str(bundle.path))
    return text
