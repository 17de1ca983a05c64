"""Weights in a foreign file format inside an installed package -> a plain model folder in the machine's cache.

A reader is `read(file, folder)`: it writes config.json, model.safetensors (fp32) and the rest of a model folder.
Plugins register one for each value of `model.source` that they add, as text, "module:function".
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from sdsbench.core.cache import cache_folder
from sdsbench.core.registry import Registry
from sdsbench.models.model_config import ModelConfig

_READERS: Registry[str] = Registry("reader of model files")


def register_reader(source: str, function: str) -> None:
    """Let `function` ("module:function") read the files of models with `model.source=source`."""
    _READERS.register(source, function)


def sources() -> list[str]:
    """Every value of model.source that has a reader."""
    return _READERS.names()


def modules_of(config: ModelConfig) -> tuple[str, ...]:
    """The module of the model's reader; none for models in plain folders."""
    try:
        return (_READERS.lookup(config.source).partition(":")[0],)
    except KeyError:
        return ()


def converted(source: str, file: Path) -> Path:
    """The plain model folder that the reader of `source` makes of a file, made once and kept in the cache.

    The folder is named by the file's content, written beside its place and renamed, so that two processes may do it at
    the same time and a killed one leaves nothing behind that would be used. Raises KeyError without a reader.
    """
    module, _, function = _READERS.lookup(source).partition(":")
    name = f"{file.stem}-{_digest(file)[:16]}"
    folder = cache_folder() / "models" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"{file.name}: made into a plain model once, in the cache", file=sys.stderr, flush=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        getattr(importlib.import_module(module), function)(file, temporary)
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
