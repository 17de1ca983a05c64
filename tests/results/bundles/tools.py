"""Bundles as dictionaries of their files, so that a test can change one file and pack the bundle again."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zstandard

from sdsbench.core.hashing import sha256_of
from sdsbench.results.bundles import archive
from sdsbench.results.bundles.manifest import FILE, BundleManifest

Files = dict[str, bytes]


def contents(path: Path) -> Files:
    with zipfile.ZipFile(path) as file:
        files = {name: file.read(name) for name in file.namelist()}
    if together := files.pop(archive.TOGETHER, None):
        with zipfile.ZipFile(io.BytesIO(together)) as file:
            files |= {name: file.read(name) for name in file.namelist()}
    return files


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    archive.pack(path, files.items())
    return path


def reseal(files: Files) -> Files:
    """Update the manifest and the checksums of records to fit the files, as an author of forged files would."""
    for name, content in files.items():
        if name.endswith("/record.json"):
            tree = json.loads(content)
            tree["checksum"] = sha256_of({**tree, "checksum": ""})
            files[name] = json.dumps(tree, indent=1, sort_keys=True).encode()
    manifest = BundleManifest.model_validate_json(files[FILE])
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in files.items()
        if name != FILE
    }
    tree = {**manifest.model_dump(), "files": entries, "checksum": ""}
    files[FILE] = BundleManifest.model_validate(tree).sealed().model_dump_json().encode()
    return files


def edit_json(name: str, change: Callable[[Any], Any]) -> Callable[[Files], None]:
    """An edit that changes the JSON of the first file whose name ends with `name`."""

    def edit(files: Files) -> None:
        key = next(key for key in sorted(files) if key.endswith(name))
        tree = json.loads(files[key])
        change(tree)
        files[key] = json.dumps(tree, indent=1, sort_keys=True).encode()

    return edit


def edit_lines(name: str, change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Files], None]:
    """An edit that changes the lines of the first JSONL file whose name ends with `name`, compressed or not."""

    def edit(files: Files) -> None:
        key = next(key for key in sorted(files) if key.endswith(name))
        text = files[key]
        if key.endswith(".zst"):
            text = zstandard.ZstdDecompressor().decompressobj().decompress(text)
        lines = [json.loads(line) for line in text.splitlines()]
        change(lines)
        made = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
        files[key] = zstandard.ZstdCompressor().compress(made) if key.endswith(".zst") else made

    return edit
