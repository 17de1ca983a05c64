"""A file of weights in a foreign format, inside an installed package -> a plain model folder in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sdsbench.core.cache import cache_folder


def converted(source: Path, convert: Callable[[Path, Path], None]) -> Path:
    """Folder with config.json, model.safetensors (fp32) and the rest that `convert(source, folder)` writes.

    The folder is named by the file's content, written beside its place and renamed, so that two processes may do it at
    the same time and a killed one leaves nothing behind that would be used.
    """
    name = f"{source.stem}-{_digest(source)[:16]}"
    folder = cache_folder() / "models" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        convert(source, temporary)
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
