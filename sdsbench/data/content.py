"""The content of rows, independent of file format and library: fingerprints, equal questions, checks of images."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sdsbench.core.errors import SdsbenchError, Unavailable
from sdsbench.core.limits import PIXELS
from sdsbench.core.texts import short_message

CHUNK = 1000  # rows read at once; reading rows one at a time costs some 50 microseconds each
_UNSPOKEN = re.compile(r"[\W_]+")


def fingerprint(table: Any, indices: Sequence[int]) -> str:
    """sha256 over the content of these rows of a table, in order; file bytes would depend on the writing library."""
    digest = hashlib.sha256()
    for rows in _chunks(table, indices):
        lines = (f"{key}\x1f{_text(row[key])}\x1e" for row in rows for key in sorted(row))
        digest.update("".join(lines).encode())
    return digest.hexdigest()


def questions(table: Any, indices: Sequence[int], columns: Sequence[str]) -> Iterator[str]:
    """For each row a text that is equal for rows that ask the same: letters and digits of these columns in lower case.

    Spacing and punctuation do not count. Images are compared by their encoded bytes, which needs no decoding.
    """
    for row in cells(table, indices, columns):
        yield "\x1f".join(_asked(row[column]) for column in columns)


def cells(table: Any, indices: Sequence[int], columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """These columns of the rows, one row at a time, as stored: a class as its number, an image as its encoded bytes."""
    if not isinstance(table, list):
        table = table.select_columns(list(columns)).with_format("arrow")
    for rows in _chunks(table, indices):
        yield from rows


def _chunks(table: Any, indices: Sequence[int]) -> Iterator[Iterator[Mapping[str, Any]]]:
    """Rows as mappings, many at a time; `table` is a list of rows or a datasets.Dataset."""
    for start in range(0, len(indices), CHUNK):
        positions = indices[start : start + CHUNK]
        if isinstance(table, list):
            yield (table[position] for position in positions)
            continue
        first, last = positions[0], positions[-1]
        run = last - first + 1 == len(positions) and all(p == first + i for i, p in enumerate(positions))
        columns = table[first : last + 1] if run else table[list(positions)]
        if not isinstance(columns, dict):
            columns = columns.to_pydict()  # an arrow table
        yield _rows(columns)


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def decoded(image: Any) -> Any:
    """The PIL image of a PIL image, or of the {"bytes": ...} that parquet files hold.

    It is turned as its EXIF data say (a camera that was held upright), which `datasets` does with the images that it
    decodes: the same file must give the same pixels in every layout.
    """
    if isinstance(image, dict):
        from PIL import Image as pil
        from PIL import ImageOps

        with readable("images"):
            opened = pil.open(io.BytesIO(image["bytes"]))
            return ImageOps.exif_transpose(opened) if pil.ExifTags.Base.Orientation in opened.getexif() else opened
    return image


def require_sound(table: Any, what: str) -> None:
    """Raise Unavailable if a table of `datasets` has texts that are not UTF-8, or cells that refer to other files."""
    import pyarrow

    try:
        table.data.table.validate(full=True)
    except pyarrow.ArrowInvalid as error:
        raise Unavailable(f"{what} cannot be read as rows: {error}") from None
    _require_enclosed(table, what)


def _require_enclosed(table: Any, what: str) -> None:
    """Raise Unavailable if a table of `datasets` names an image by a path or an address instead of holding its bytes,
    or has sounds or videos: `datasets` would open that file, or connect to that server, when it reads the row.
    """
    import datasets
    import pyarrow.compute as arrow
    from datasets.features.features import require_decoding

    for name, feature in table.features.items():
        if not require_decoding(feature):
            continue
        accepted = "accepted: images, each with its bytes in the file"
        if not isinstance(feature, datasets.Image):
            raise Unavailable(f"{what}: column {name[:100]}: {type(feature).__name__}; {accepted}")
        column = table.data.column(name)
        bare = arrow.and_(
            arrow.is_null(arrow.struct_field(column, "bytes")), arrow.is_valid(arrow.struct_field(column, "path"))
        )
        if arrow.any(bare).as_py():
            raise Unavailable(f"{what}: column {name[:100]}: an image that is a path or an address; {accepted}")


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Inside the block, PIL and `datasets` open no image of more pixels than the limit; a small file may declare any
    number.

    Raises Unavailable, naming `what`, for such an image and for one that cannot be decoded, whatever error that raises.
    """
    from PIL import EpsImagePlugin
    from PIL import Image as pil

    EpsImagePlugin.gs_binary = False  # otherwise PIL starts Ghostscript, another program, for PostScript images
    pil.MAX_IMAGE_PIXELS = PIXELS.value // 2  # PIL warns above this number and raises an error above twice as many
    warnings.simplefilter("ignore", pil.DecompressionBombWarning)
    try:
        yield
    except pil.DecompressionBombError:
        raise Unavailable(
            f"{what}: an image of more than {PIXELS.value} pixels, the limit; {PIXELS.key}=NUMBER in the environment "
            "raises it."
        ) from None
    except SdsbenchError:
        raise
    except Exception as error:  # PIL's decoders have no common class: struct.error, IndexError, ValueError ...
        raise Unavailable(f"{what}: an image cannot be decoded ({short_message(error)}).") from None


def _text(value: Any) -> str:
    """A text that depends only on a value's content (for images, on their pixels)."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        value = decoded(value)
    if hasattr(value, "tobytes"):
        return hashlib.sha256(value.tobytes()).hexdigest()
    return repr(value)


def _asked(value: Any) -> str:
    if isinstance(value, str):
        return _UNSPOKEN.sub("", value.casefold()) or value
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return hashlib.sha256(value["bytes"]).hexdigest()
    if isinstance(value, list) and all(isinstance(item, dict) and "role" in item for item in value):
        return "\x1f".join(_asked(item.get("content")) for item in value[:-1])  # the last message is the answer
    return _text(value)
