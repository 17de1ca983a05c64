"""Convert weights in a foreign file format inside an installed package to a plain model folder in the machine's cache.

A reader is `read(file, folder)`: it writes config.json, model.safetensors (fp32) and the rest of a model folder.
Plugins register one for each value of `model.source` that they add, as text, "module:function".
"""

from __future__ import annotations

import json
import pkgutil
import sys
from pathlib import Path

from sdsbench.core.disk_cache import cached
from sdsbench.core.errors import Unavailable
from sdsbench.core.file_hash import content_hash
from sdsbench.core.registry import Registry
from sdsbench.models.model_config import ModelConfig
from sdsbench.models.model_folder import check_weights, json_of, reading, weight_files
from sdsbench.models.quiet import quiet

_READERS: Registry[str] = Registry("reader of model files")
_WRITER = ("transformers_version", "is_local", "local_files_only")
"""Keys that describe how a folder was written, not the model. They are dropped so that the fingerprint is the same for
every version of transformers and with or without HF_HUB_OFFLINE; finished runs are matched by fingerprint."""


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
    """The plain model folder that the reader of `source` writes from a file; written once and kept in the cache.

    The folder is named by the file's hash. Raises Unavailable if the reader fails, KeyError if `source` has no reader.
    """
    reader = _READERS.lookup(source)

    def build(folder: Path) -> None:
        print(f"{file.name}: made into a plain model once, in the cache", file=sys.stderr, flush=True)
        with quiet(), reading(file.name):
            pkgutil.resolve_name(reader)(file, folder)
            check_weights(weight_files(folder))
            _remove_writer_keys(folder)

    if not file.is_file():
        raise Unavailable(f"{file.name}: no such file in the package")
    digest = content_hash(file)
    return cached("models", f"{file.stem}-{digest[:16]}", f"{source} {digest} without {', '.join(_WRITER)}", build)


def _remove_writer_keys(folder: Path) -> None:
    for path in sorted(folder.glob("*config.json")):
        content = json_of(path)
        kept = {key: value for key, value in content.items() if key not in _WRITER}
        if kept != content:
            path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
