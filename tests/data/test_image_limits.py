"""Foreign images: the limit on their pixels, damaged ones, and paths or addresses in place of image bytes."""

from __future__ import annotations

import io
import json
import os
import socket
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from sdsbench.core.errors import Unavailable
from sdsbench.data import local_files
from sdsbench.data.content import decoded, readable


def encoded_image(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (size, size)).save(buffer, "png")
    return buffer.getvalue()


def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDSBENCH_LIMIT_PIXELS", "1000000")
    assert decoded({"bytes": encoded_image(1000)}).size == (1000, 1000)
    large = encoded_image(1500)
    assert len(large) < 1000, "a small file"
    with pytest.raises(Unavailable, match=r"more than 1000000 pixels.*SDSBENCH_LIMIT_PIXELS"):
        decoded({"bytes": large})


def test_damaged_png_is_refused_with_a_message() -> None:
    with pytest.raises(Unavailable, match="cannot be decoded"):
        decoded({"bytes": b"no image"})
    chunk = (10**6).to_bytes(4, "big") + b"tEXt"  # a chunk that is longer than the file
    with pytest.raises(Unavailable, match="cannot be decoded"):
        decoded({"bytes": encoded_image(8)[:33] + chunk + b"x" * 9})
    cut = Image.open(io.BytesIO(encoded_image(1000)[:100]))
    with pytest.raises(Unavailable, match="row 3: an image cannot be decoded"), readable("row 3"):
        cut.load()


def test_photo_is_turned_as_its_exif_data_say_in_every_layout(tmp_path: Path) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # turned by a quarter
    Image.effect_noise((8, 4), 50).save(buffer, "png", exif=exif)
    cell = {"bytes": buffer.getvalue(), "path": None}
    file = write_image_table(tmp_path / "t.parquet", "Image", cell)
    by_datasets = local_files.read(local_files.of_path(file), None)[0]["image"]
    assert decoded(cell).size == (4, 8) and decoded(cell).tobytes() == by_datasets.tobytes()


BROKEN = {
    "ppm": b"P6 1\xed 16 255\n" + b"0" * 99, "xbm": b"#define im_width 1\xcc\n#define im_height 16\n",
    "dds": b"DDS |\0\0\0" + b"\0" * 60, "tga": b"\0\0\x02" + b"\0" * 9 + b"\x10\0\x10\0\x18\0" + b"0" * 9,
    "bmp": b"BM" + b"\0" * 12 + b"\xf2" + b"\0" * 40,
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_error_of_any_decoder_becomes_one_message(kind: str) -> None:
    with pytest.raises(Unavailable, match="an image cannot be decoded"), readable("row 1"):
        decoded({"bytes": BROKEN[kind]}).load()


def test_postscript_image_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL would start Ghostscript (`gs`) if it were installed."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(Unavailable, match="an image cannot be decoded"), readable("row 1"):
        decoded({"bytes": text}).load()
    assert not (tmp_path / "ran").exists()


def write_image_table(path: Path, kind: str, value: dict[str, object]) -> Path:
    """A parquet file of three rows whose column `image` is declared as a `datasets` feature (Image, Audio, Video)."""
    column = pyarrow.array([value] * 3, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    features = {"info": {"features": {"image": {"_type": kind}}}}
    table = pyarrow.table({"image": column}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pyarrow.parquet.write_table(table, path)
    return path


def test_image_given_as_path_or_address_is_neither_opened_nor_fetched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.png"
        for where in (str(tmp_path / "pipe"), address, "/etc/passwd", f"zip://a::{address}"):
            file = write_image_table(tmp_path / "t.parquet", "Image", {"bytes": None, "path": where})
            with pytest.raises(Unavailable, match="column image: an image that is a path or an address"):
                local_files.read(local_files.of_path(file), None)[0]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    file = write_image_table(tmp_path / "t.parquet", "Image", {"bytes": encoded_image(4), "path": "/etc/passwd"})
    assert local_files.read(local_files.of_path(file), None)[0]["image"].size == (4, 4)


@pytest.mark.parametrize("kind", ["Audio", "Video"])
def test_audio_and_video_are_not_decoded(kind: str, tmp_path: Path) -> None:
    file = write_image_table(tmp_path / "t.parquet", kind, {"bytes": b"x", "path": "x"})
    with pytest.raises(Unavailable, match=f"column image: {kind}; accepted: images"):
        local_files.read(local_files.of_path(file), None)[0]
