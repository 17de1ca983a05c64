"""The files of a model folder: which ones loading reads, checks of their content, and their hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from sdsbench.core.errors import SdsbenchError, Unavailable
from sdsbench.core.file_hash import content_hash

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
LOADED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*.jinja")
"""Files of a model folder that loading reads, and that are fetched from the hub: weights, configuration, tokenizer with
its chat templates, image processor."""
_POINTER = b"version https://git-lfs"
_SHOWN = 400  # characters of a library's error message that are shown
MOST_BYTES = 2**28  # largest JSON file that is read; the largest tokenizers have 35 MB
MOST_MODULES = 2048
"""Largest number of blocks or experts in a config.json: building the number in a damaged file could take forever."""
MOST_LABELS = 10**6  # largest number of labels in a config.json; transformers creates a name for each


def fingerprint(folder: Path) -> str:
    """sha256 over name and content of every file that loading reads.

    Raises Unavailable if the folder has no weights or its index names weights outside the folder, which are not hashed.
    """
    weight_files(folder)
    digest = hashlib.sha256()
    for path in loaded_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content_hash(path)}\0".encode())
    return digest.hexdigest()


def loaded_files(folder: Path) -> list[Path]:
    """The files to hash, in order. Raises Unavailable if one of these names is not a regular file.

    Hidden files are left out: no loader reads them, and the cache's seal holds time stamps of this machine.
    """
    found = sorted(path for pattern in LOADED for path in folder.glob(pattern) if not path.name.startswith("."))
    for path in found:
        if not path.is_file():
            raise Unavailable(f"{_shown(path)}: accepted: a file; it is none (a folder, a pipe or a dead link)")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files from which the weights are loaded, as transformers chooses them.

    Raises Unavailable if there are none, if a file to load is not a regular file (a pipe would block), and if the index
    names anything but safetensors files of this folder.
    """
    loaded_files(folder)
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if not (folder / INDEX).exists():
        raise Unavailable(_without_weights(folder))
    map_of = json_of(folder / INDEX).get("weight_map")
    names = list(map_of.values()) if isinstance(map_of, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise Unavailable(f"{_shown(folder / INDEX)}: accepted: a weight_map of tensor names to file names")
    for name in dict.fromkeys(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise Unavailable(
                f"{_shown(folder / INDEX)}: names {name[:200]!r}; accepted: names of *.safetensors files in its folder"
            )
        if not (folder / name).is_file():
            raise Unavailable(f"{_shown(folder / INDEX)}: names {name}, which is not there; download the folder again")
    return [folder / name for name in sorted(set(names))]


def config_of(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json, checked as far as possible without building the model.

    Raises Unavailable for invalid JSON, quantised weights, an adapter instead of a model, weights under a non-standard
    file name, or more blocks than MOST_MODULES.
    """
    path = folder / CONFIG
    if (folder / "adapter_config.json").exists():
        raise Unavailable(f"{folder.name}: adapter_config.json says that this is an adapter; accepted: a whole model")
    config_json = json_of(path)
    if "quantization_config" in config_json or "compression_config" in config_json:
        raise Unavailable(f"{_shown(path)}: the weights are quantised; accepted: float32, bfloat16 or float16 weights")
    if "transformers_weights" in config_json:
        raise Unavailable(f"{_shown(path)}: transformers_weights: accepted: weights in {SINGLE} or {INDEX}")
    check_counts(config_json, _shown(path))
    return config_json


def check_counts(config_json: Any, where: str) -> None:
    """Raise Unavailable if a configuration declares too many blocks, experts (MOST_MODULES) or labels (MOST_LABELS)."""
    if not isinstance(config_json, dict):
        return
    for key, value in config_json.items():
        check_counts(value, where)
        if key == "num_labels" and isinstance(value, int | float) and value > MOST_LABELS:
            raise Unavailable(f"{where}: {key}={value}: accepted: at most {MOST_LABELS}")
        counts = any(word in str(key) for word in ("layer", "expert", "block")) and isinstance(value, int | float)
        if counts and value > MOST_MODULES and ("num" in key or key.startswith("n_")):
            raise Unavailable(f"{where}: {key}={value}: accepted: at most {MOST_MODULES}")


def check_weights(paths: list[Path]) -> int:
    """Number of weights that the files declare. Raises Unavailable for git-lfs pointers and truncated files."""
    from safetensors import safe_open

    total = 0
    for path in paths:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise Unavailable(f"{_shown(path)}: a pointer of git-lfs, not the weights. Run: git lfs pull")
        with reading(_shown(path)), safe_open(path, framework="pt") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def json_of(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises Unavailable if the file holds no JSON object or more than MOST_BYTES."""
    if not path.is_file():
        raise Unavailable(f"{_shown(path)}: no such file")
    if path.stat().st_size > MOST_BYTES:
        raise Unavailable(f"{_shown(path)}: accepted: at most {MOST_BYTES} bytes")
    with reading(_shown(path)):
        found = from_json(path.read_bytes())  # unlike json, it refuses half of a surrogate pair, which has no hash
    if not isinstance(found, dict):
        raise Unavailable(f"{_shown(path)}: accepted: a JSON object")
    return found


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn any exception inside the block into Unavailable with a one-line message; wraps every reader of foreign
    files."""
    try:
        yield
    except SdsbenchError:
        raise
    except Exception as error:  # libraries raise any type, RecursionError and MemoryError too
        said = " ".join(str(error).split())
        said = f"{said[:_SHOWN]} ..." if len(said) > _SHOWN else said
        raise Unavailable(f"{what}: cannot be read: {type(error).__name__}: {said}") from None


def _without_weights(folder: Path) -> str:
    if any(folder.glob("*.bin")):
        other = "only pickled weights (*.bin), which may run code; convert them with model.save_pretrained"
    elif any(folder.glob("*.gguf")):
        other = "a GGUF file, which is read from packages alone (model.source=gguf)"
    else:
        other = "none"
    return f"{folder.name}: accepted: a folder with {SINGLE}, or {INDEX} and its files (*.safetensors); it has {other}"


def _shown(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
