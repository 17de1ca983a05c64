"""Faulty GGUF files are refused in one line with the file and the reason; sizes that a file declares may be wrong."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdsbench.core.errors import Unavailable
from sdsbench.core.registry import Registry
from sdsbench.models import readers
from sdsbench.models.model_folder import fingerprint
from sdsbench.models.readers import converted


def header(tensors: int, keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("llama")
TENSOR = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 2**20, 2**20, 0, 0)
FILES = {
    "empty": b"",
    "plain text": b"not a model at all" * 10,
    "header only": header(0, 0),
    "another version": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
    "more keys than bytes": header(0, 2**60),
    "more tensors than bytes": header(2**60, 1) + ARCHITECTURE,
    "a text longer than the file": header(0, 1) + struct.pack("<Q", 2**62),
    "an array longer than the file": header(0, 1) + text("a") + struct.pack("<IIQ", 9, 0, 2**61),
    "a tensor of 4 TiB": header(1, 1) + ARCHITECTURE + TENSOR,
    "no model sizes": header(0, 1) + ARCHITECTURE,
    "an unknown architecture": header(0, 1) + ARCHITECTURE.replace(b"llama", b"lhama"),
}


@pytest.mark.parametrize("name", FILES)
def test_faulty_gguf_is_refused_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.gguf").write_bytes(FILES[name])
    with pytest.raises(Unavailable) as caught:
        converted("gguf", tmp_path / "own.gguf")
    assert "own.gguf" in str(caught.value) and "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_parts_must_add_up_to_the_file_of_the_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    sums = tmp_path / "toy_gguf" / "data" / "SHA256SUMS"
    sums.parent.mkdir(parents=True)
    digest = hashlib.sha256(b"onetwo").hexdigest()
    sums.write_text(f"{digest}  toy.gguf\n")
    with pytest.raises(Unavailable, match="its parts are not the file that toy_gguf names"):
        converted("gguf_parts", sums)
    for number, content in enumerate((b"one", b"two"), 1):
        folder = tmp_path / f"toy_gguf_part{number}" / "data"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / f"toy.gguf.part0{number - 1}").write_bytes(content)
    with pytest.raises(Unavailable, match=r"toy\.gguf: not a GGUF file"):  # now all parts are there
        converted("gguf_parts", sums)


@pytest.mark.parametrize("key", ["transformers_version", "local_files_only"])
def test_fingerprint_ignores_the_library_version_that_converted_a_file(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.gguf").write_bytes(b"a model")
    monkeypatch.setattr(readers, "_READERS", Registry("reader"))
    readers.register_reader("toy", f"{__name__}:toy_reader")
    found = []
    for number, value in enumerate(("5.17.0", "5.23.0")):
        monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path / f"cache{number}"))
        monkeypatch.setitem(TOY_CONFIG, key, value)
        folder = converted("toy", tmp_path / "own.gguf")
        assert json.loads((folder / "config.json").read_text()) == {"hidden_size": 4}
        found.append(fingerprint(folder))
    assert found[0] == found[1]


TOY_CONFIG = {"hidden_size": 4}


def toy_reader(_file: Path, folder: Path) -> None:
    """A reader as a plugin would register it."""
    save_file({"weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TOY_CONFIG))
