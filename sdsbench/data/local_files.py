"""Find and read the files of one split, in the usual layouts of data sets; `datasets` reads their rows.

train.parquet                               one file; also .jsonl, .json (a list or lines of rows), .csv, .tsv, .arrow,
                                            and each of them as .gz, .zst, .bz2 or .xz
train-00000-of-00003.parquet ...            shards, all of which must exist
data/..., <configuration>/...               the same in a subfolder, as after `hf download`
train/...                                   every data file of a folder with the split's name
train/ with state.json                      a folder written by `save_to_disk`
MetaMathQA-395K.json                        the only data file of a set that has no other split
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard

from sdsbench.core import limits
from sdsbench.core.errors import DamagedFile, SdsbenchError, Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.core.reading import parse_json
from sdsbench.core.texts import some_of
from sdsbench.data.content import require_sound

BUILDERS = {
    ".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow",
}  # fmt: skip
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".zst": zstandard.open, ".bz2": bz2.open, ".xz": lzma.open}
LISTED = 20  # largest number of files that a message lists
_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_OF_A_SPLIT = re.compile(r"(^|[-_.])(train(ing)?|val(id(ation)?)?|dev|test(ing)?|eval(uation)?)([-_.]|$)")
_STATE = "state.json"  # of a folder of save_to_disk
_SET_FILES = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", _STATE, "metadata.json")
_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split, in order; with `saved`, the folder that `save_to_disk` wrote."""

    paths: tuple[Path, ...]
    saved: bool = False


def find(
    folder: Path, names: Sequence[str], configuration: str | None = None, alone: bool = False
) -> SplitFiles | None:
    """The files of the split that has one of these names; None if there are none.

    `alone`: also accept a single data file whose name contains no split. Raises Unavailable if shards are missing, or
    if there are several candidates for the split, such as two formats of one file, or a folder beside a file.
    """
    places = list(dict.fromkeys([folder, *([folder / configuration] if configuration else []), folder / "data"]))
    named = [(name, found) for place in places for name in names for found in _candidates(place, name)]
    if named:
        name, chosen = named[0]
        first = [found.paths[0] / _STATE if found.saved else found.paths[0] for other, found in named if other == name]
        if len(first) > 1:
            raise _ambiguous(str(folder), [path.relative_to(folder).as_posix() for path in first])
        return chosen
    if alone:
        files = [path for place in places for path in _data_files(place)]
        if len(files) == 1 and not _OF_A_SPLIT.search(_stem(files[0])):
            return SplitFiles((files[0],))
    return None


def of_path(path: Path) -> SplitFiles:
    """The one split in a user's own file or folder. Raises Unavailable if it contains none."""
    if path.is_dir():
        if (path / _STATE).is_file():
            return SplitFiles((path,), saved=True)
        if files := _of_one_kind(list(_data_files(path)), str(path)):
            return files
    elif path.is_file() and _builder(path):
        return SplitFiles((path,))
    problem = (
        "no data file in it" if path.is_dir() else "no such file" if not path.exists() else "an unknown kind of file"
    )
    raise Unavailable(f"{path}: {problem}; accepted: {', '.join(BUILDERS)}, packed or not, or a folder of save_to_disk")


def read(files: SplitFiles, text_columns: Collection[str] | None) -> Any:
    """The rows as a datasets.Dataset; `text_columns` (None: all) are read as text from CSV, which has no types.

    Raises Unavailable, naming the file, if `datasets` cannot read it.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it would log errors that it also raises
    first = files.paths[0]
    try:
        if files.saved:
            _state(first)
            # A format that the set was saved with would hide columns, or give arrays in place of texts and numbers.
            table = datasets.load_from_disk(str(first), keep_in_memory=True).with_format(None)
            require_sound(table, str(first))
            return table
        for path in files.paths:
            with path.open("rb") as file:
                if file.read(len(_LFS)) == _LFS:
                    raise ValueError("a pointer of git LFS lies in its place: `git lfs pull` fetches the file itself")
            _check_declared_size(path)
        builder, options = _builder(first), {}
        if builder == "csv":
            separator = "\t" if _ending(first) == ".tsv" else ","
            headers = [_csv_header(path, separator) for path in files.paths]
            if text_columns is None:
                text_columns = headers[0]
            options = {"sep": separator, "converters": dict.fromkeys(text_columns, str), "keep_default_na": False}
        paths = [str(path) for path in files.paths]
        table = datasets.load_dataset(str(builder), data_files=paths, split="train", keep_in_memory=True, **options)
        require_sound(table, str(first))
        return table
    except SdsbenchError:
        raise
    except Exception as error:  # pyarrow, pandas and datasets raise errors of many types for damaged files
        kind = "a folder of save_to_disk" if files.saved else _builder(first)
        reason = "it has 0 rows" if _NO_ROWS in str(error) or _empty(files) else error.__cause__ or error
        others = f" (and {len(files.paths) - 1} more)" if len(files.paths) > 1 else ""
        raise Unavailable(f"{first}{others} cannot be read as {kind}: {reason}") from None


def _csv_header(path: Path, separator: str) -> list[str]:
    """The column names of a CSV file.

    Raises Unavailable if its first row has more cells than the header: pandas would take the first cell of each row for
    the row's name, and read the others into the wrong columns.
    """
    import pandas

    table = pandas.read_csv(path, sep=separator, nrows=1)
    if len(table) and not isinstance(table.index, pandas.RangeIndex):
        raise Unavailable(
            f"{path}: its header names {len(table.columns)} columns, its first row has "
            f"{len(table.columns) + table.index.nlevels} cells; accepted: a name for every column, and quotes around a "
            "cell that contains the separator"
        )
    return list(table.columns)


def _check_declared_size(path: Path) -> None:
    """Raise DamagedFile if a packed file, or the rows of a parquet file, would exceed the limits once read."""
    if path.suffix in PACKED:
        size = 0
        with PACKED[path.suffix](path, "rb") as file:
            while block := file.read(2**20):
                size += len(block)
                limits.DATA.require(size, path)
    if _builder(path) == "parquet":
        from pyarrow import parquet

        limits.ROWS.require(parquet.read_metadata(path).num_rows, path)


_NO_ROWS = "corresponds to no data"
"""Part of the error of `datasets` for files without rows."""


def _empty(files: SplitFiles) -> bool:
    """Whether the files have no bytes, or the folder of `save_to_disk` lists no data file, as it does for 0 rows."""
    if files.saved:
        return not _state(files.paths[0]).get("_data_files")
    return not any(path.stat().st_size for path in files.paths)


def listing(folder: Path) -> str:
    """The files below a folder as text for a message."""
    if not folder.is_dir():
        return "nothing: there is no such folder"
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = sorted(path.as_posix() for path in islice(paths, 5000) if not any(p.startswith(".") for p in path.parts))
    return some_of(files, LISTED) or "no file"


def conversion(folder: Path, target: str) -> str:
    """Advice with a command that converts a data file of the folder, if there is one, to the expected file `target`."""
    found = next((path for path in sorted(folder.rglob("*")) if _builder(path)), None) if folder.is_dir() else None
    builder, name = (_builder(found), found.relative_to(folder)) if found else ("json", "FILE.jsonl")
    code = f"import datasets; datasets.load_dataset('{builder}', data_files='{name}')['train'].to_parquet('{target}')"
    return f'To convert another file, run in that folder: python -c "{code}"'


def _candidates(place: Path, name: str) -> Iterator[SplitFiles]:
    """Everything in a folder that could be the split: what `save_to_disk` wrote (a DatasetDict's subfolder, or a
    Dataset's folder that names this split), a folder with the split's name, and files with its name."""
    if (place / name / _STATE).is_file():
        yield SplitFiles((place / name,), saved=True)
    elif inside := _of_one_kind(list(_data_files(place / name)), f"{place.name}/{name}"):
        yield inside
    if (place / _STATE).is_file() and _state(place).get("_split") == name:
        yield SplitFiles((place,), saved=True)
    if files := _files(place, name):
        yield files


def _state(folder: Path) -> dict[str, Any]:
    """The state.json of a folder of `save_to_disk`. Raises Unavailable if it is not an object or lists files outside
    the folder."""
    path = folder / _STATE
    try:
        state = parse_json(path.read_bytes(), path)
    except DamagedFile as error:
        raise Unavailable(f"{error} {_SAVE_AGAIN}") from None
    files = state.get("_data_files") if isinstance(state, dict) else None
    listed = files if isinstance(files, list) else [] if files is None else [files]
    names = [file.get("filename") if isinstance(file, dict) else None for file in listed]
    if not isinstance(state, dict) or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise Unavailable(f"{path}: accepted: an object whose _data_files name files of its folder. {_SAVE_AGAIN}")
    return state


_SAVE_AGAIN = "Write the folder again with save_to_disk."


def _files(place: Path, name: str) -> SplitFiles | None:
    files, shards = [], []
    for path in _data_files(place):
        if _stem(path) == name:
            files.append(path)
        elif (match := _SHARD.fullmatch(_stem(path))) and match["split"] == name:
            shards.append((path, int(match["count"])))
    if shards:
        counts = {count for _, count in shards}
        if len(counts) > 1 or len(shards) != counts.pop():
            raise Unavailable(
                f"{place.name}: {len(shards)} of the shards of split {name} are there, "
                f"{', '.join(path.name for path, _ in shards[:LISTED])}; accepted: all that -of- says"
            )
    return _of_one_kind([*files, *(path for path, _ in shards)], place.name)


def _of_one_kind(paths: Sequence[Path], where: str) -> SplitFiles | None:
    """The files, sorted; None without any. Raises Unavailable for files of two kinds, and for names that differ only in
    their endings (train.json, train.jsonl.gz): they might be copies of the same rows."""
    kinds = {(_builder(path), _ending(path) == ".tsv", bool(_SHARD.fullmatch(_stem(path)))) for path in paths}
    copies = [path for same in grouped(paths, _stem).values() if len(same) > 1 for path in same]
    if len(kinds) > 1 or copies:
        raise _ambiguous(where, [path.name for path in copies or paths])
    return SplitFiles(tuple(sorted(paths))) if paths else None


def _ambiguous(where: str, names: Sequence[str]) -> Unavailable:
    """The error for several files or folders, each of which could be one split."""
    found = ", ".join(names[:LISTED])
    return Unavailable(
        f"{where}: {found} could each be the split; accepted: one of them, or files of one kind whose names differ in "
        "more than their endings. Move the others away."
    )


def _data_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_file() and _builder(path) and path.name not in _SET_FILES and not path.name.startswith("."):
                yield path


def _builder(path: Path) -> str | None:
    """The builder of `datasets` for a file, by its ending; None for unknown endings."""
    return BUILDERS.get(_ending(path))


def _ending(path: Path) -> str:
    """A file's ending, without that of its compression."""
    return _unpacked(path).suffix


def _stem(path: Path) -> str:
    """A file's name without its endings."""
    return _unpacked(path).stem


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in PACKED else path
