"""Images of others: how many pixels one may declare, and what is said of one that cannot be decoded."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from sdsbench.core.errors import Unavailable
from sdsbench.data.content import decoded, readable


def _encoded(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (size, size)).save(buffer, "png")
    return buffer.getvalue()


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDSBENCH_LIMIT_PIXELS", "1000000")
    assert decoded({"bytes": _encoded(1000)}).size == (1000, 1000)
    large = _encoded(1500)
    assert len(large) < 1000, "a small file"
    with pytest.raises(Unavailable, match=r"more than 1000000 pixels.*SDSBENCH_LIMIT_PIXELS"):
        decoded({"bytes": large})


def test_an_image_that_cannot_be_decoded_is_one_line() -> None:
    with pytest.raises(Unavailable, match="cannot be decoded"):
        decoded({"bytes": b"no image"})
    chunk = (10**6).to_bytes(4, "big") + b"tEXt"  # of more bytes than the file has
    with pytest.raises(Unavailable, match="cannot be decoded"):
        decoded({"bytes": _encoded(8)[:33] + chunk + b"x" * 9})
    cut = decoded({"bytes": _encoded(1000)[:100]})
    with pytest.raises(Unavailable, match="row 3: an image cannot be decoded"), readable("row 3"):
        cut.load()
