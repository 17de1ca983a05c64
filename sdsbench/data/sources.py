"""Rows of a data set from one of three sources: the hub, a local folder, or this package's generators.

All sources give the same columns, checked rows and a fingerprint of their content. A data set that the chosen source
lacks is never substituted: the error says what the source has.
"""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from urllib.request import getproxies

from sdsbench.core.errors import ConfigError, Problem, Unavailable
from sdsbench.core.reading import kind_of
from sdsbench.core.record import DataUsed
from sdsbench.core.texts import short_message
from sdsbench.data import catalogue, columns, content, local_files, own_files
from sdsbench.data.catalogue import DataSet
from sdsbench.data.data_config import DataConfig
from sdsbench.data.generators import generated_sets, generator_of, is_generated
from sdsbench.data.local_files import SplitFiles

Source = Literal["hub", "local", "embedded"]
_COMMIT = re.compile("[0-9a-f]{40}")
EMBEDDED_ROWS = {"train": 4000, "validation": 500, "test": 1000}
MOST_GENERATED = 1_000_000
_PATIENCE = 10.0  # seconds for a connection to the hub where data.source=hub is asked for


@dataclass(frozen=True)
class Rows:
    """Rows of one split, and where they came from. Rows are read on demand, so images stay encoded until used."""

    dataset: str
    split: str
    source: Source
    revision: str | None
    table: Any  # datasets.Dataset, or a list of dicts
    indices: tuple[int, ...]  # positions of the used rows of `table`, in order
    asks: tuple[str, ...] = ()  # columns that together state the question
    classes: str | None = None  # column of a row's class

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        if isinstance(self.table, list):
            return self.table[self.indices[position]]
        with content.readable(f"data set {self.dataset}, split {self.split}, row {self.indices[position] + 1}"):
            return self.table[self.indices[position]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[position] for position in range(len(self)))

    def take(self, positions: Sequence[int]) -> Rows:
        """The rows at these positions, in this order."""
        return dataclasses.replace(self, indices=tuple(self.indices[p] for p in positions))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the content of the rows in order (not over file bytes, which depend on the library that wrote
        them)."""
        with content.readable(f"data set {self.dataset}, split {self.split}"):
            return content.fingerprint(self.table, self.indices)

    def questions(self, columns: Sequence[str] = ()) -> Iterator[str]:
        """Each row's question, in a normal form that can be compared between data sets (data/content.py)."""
        return content.questions(self.table, self.indices, columns or self.asks)

    def cells(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """The stored values of these columns, row by row; other columns are not read."""
        return content.cells(self.table, self.indices, columns)

    def used(self) -> DataUsed:
        """This split's entry in the record."""
        return DataUsed(
            dataset=self.dataset, split=self.split, source=self.source, revision=self.revision,
            rows=len(self), fingerprint=self.fingerprint,
        )  # fmt: skip


@lru_cache(maxsize=1)
def hub_reachable() -> bool:
    """Whether the hub answers within 1.5 seconds; false without a request in offline mode."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _hub_connects(1.5)


@lru_cache(maxsize=4)
def _hub_connects(seconds: float) -> bool:
    from huggingface_hub import constants

    address = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def _without_network() -> bool:
    """Whether the hub surely cannot be reached; false behind a proxy, which alone may know, and in offline mode."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies().keys() & {"http", "https", "all"}:
        return False
    return not hub_reachable() and not _hub_connects(_PATIENCE)


def load(name: str, split: str, config: DataConfig, classes: str | None = None) -> Rows:
    """All rows of a split (`train`, `validation` or `test`), before any limit. `data.source` must be resolved.

    `classes`: the column of a row's class, needed for a user's own files only. Raises Unavailable if the source lacks
    the split; the message says what it has and what to do.
    """
    data_set = catalogue.get(name)
    source: Any = config.source
    require(data_set, split, config)
    readers = {"hub": _from_hub, "local": _from_folder, "embedded": _generated}
    table, revision = readers[source](data_set, split, config)
    asks = own_files.fields(config.question or "") if data_set.own else data_set.question_columns
    rows = Rows(
        name, split, source, revision, table, tuple(range(len(table))), tuple(asks), data_set.classes or classes
    )
    if not len(rows):
        raise Unavailable(f"data set {name}, split {split}: the {source} source has 0 rows")
    if not data_set.own:
        columns.check(rows, data_set.checks_of(split))
        return rows
    # The task checks the rest: it knows the columns.
    columns.check(rows, dict.fromkeys(asks, columns.PRESENT), own_files.NAMED_BY)
    return rows if config.test else own_files.side(rows, split, config.test_share)


def text_rows(path: str) -> Rows:
    """The rows of a user's own text, in a column `text`: a .txt file is one row, any other file has the column.

    Raises Unavailable if the column or its text is missing or empty.
    """
    file = Path(path)
    try:
        if file.suffix == ".txt":
            if file.exists() and not file.is_file():
                raise Unavailable(f"eval.text={path}: {kind_of(file.stat().st_mode)}; accepted: a file")
            table: Any = [{"text": file.read_text(encoding="utf-8")}]
        else:
            table = local_files.read(local_files.of_path(file), None)
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"eval.text={path}: {error}") from None
    rows = Rows("text", "test", "local", None, table, tuple(range(len(table))))
    if not len(rows):
        raise Unavailable(f"eval.text={path}: 0 rows")
    columns.check(rows, {"text": columns.TEXT})
    return rows


def has_validation(data_set: DataSet, config: DataConfig) -> bool:
    """Whether the source has a separate validation split for this set."""
    if config.source == "embedded":
        return True
    if data_set.own:
        return config.validation is not None
    if config.source == "local":
        return _files(data_set, "validation", config) is not None
    return "validation" in data_set.splits


def require(data_set: DataSet, split: str, config: DataConfig) -> None:
    """Raises Unavailable if, by the catalogue or the existing local folder, the source has no such split."""
    if config.source == "hub" and (data_set.hub_id is None or split not in data_set.splits):
        raise Unavailable(
            f"data set {data_set.name}: the hub source has no split {split!r}; it has "
            f"{', '.join(data_set.splits) if data_set.hub_id else 'nothing of this set'}. {accepted_sources(data_set)}"
        )
    if config.source == "embedded" and not is_generated(data_set.name):
        have = "" if data_set.own else f"; it makes {', '.join(generated_sets())}"
        lacks = f"data set {data_set.name}: the embedded source does not make it{have}."
        raise Unavailable(f"{lacks} {accepted_sources(data_set)}")
    if data_set.own and config.source == "local":
        own_files.files(split, config)
    elif config.source == "local" and _is_folder(Path(config.root or "")):
        _require_files(data_set, split, config)


def _is_folder(path: Path) -> bool:
    """Whether a folder exists. Raises Unavailable if this user lacks the permission to look."""
    try:
        return path.is_dir()
    except OSError as error:
        raise Unavailable(f"data.root={path}: {error}") from None


def _from_folder(data_set: DataSet, split: str, config: DataConfig) -> tuple[Any, None]:
    if data_set.own:
        return local_files.read(own_files.files(split, config), None), None
    found = _require_files(data_set, split, config)
    try:
        return local_files.read(found, data_set.text_columns), None
    except Unavailable as error:
        raise Unavailable(f"data set {data_set.name}: {error}") from None


def _require_files(data_set: DataSet, split: str, config: DataConfig) -> SplitFiles:
    """The files of a split below data.root. Raises Unavailable, listing what is there, if there are none."""
    if found := _files(data_set, split, config):
        return found
    root, file = Path(config.root or ""), f"{data_set.folder or data_set.name}/{split}.parquet"
    raise Unavailable(
        f"data set {data_set.name}: no file {file}, nor this split in another layout (docs/data.md), below "
        f"data.root={config.root}. It has: {local_files.listing(root)}. {accepted_sources(data_set)} "
        f"{local_files.conversion(root, file)}"
    )


def _files(data_set: DataSet, split: str, config: DataConfig) -> SplitFiles | None:
    """The files of a split, from the first candidate folder below data.root that has them.

    Raises Unavailable if shards are missing, two files could be the split, or a folder cannot be read.
    """
    root = Path(config.root or "")
    folders = [root / (data_set.folder or data_set.name)]
    if data_set.hub_id:
        folders += [root / data_set.hub_id, root / data_set.hub_id.partition("/")[2]]
        folders += [snapshot] if (snapshot := _snapshot(data_set, root)) else []
    try:
        return next(filter(None, (_in_folder(data_set, split, folder) for folder in folders)), None)
    except Unavailable as error:
        raise Unavailable(f"data set {data_set.name}: {error}") from None
    except OSError as error:
        raise Unavailable(f"data set {data_set.name}: data.root={config.root}: {error}") from None


def _in_folder(data_set: DataSet, split: str, folder: Path) -> SplitFiles | None:
    """The files of a split, under our name or the hub's name for it, unless that name means another split."""
    names = dict.fromkeys([split, data_set.splits.get(split, split)])
    alone = split == "train" and set(data_set.splits) == {"train"}
    found = local_files.find(folder, list(names), data_set.hub_config, alone)
    for other, name in data_set.splits.items():
        if found and split not in data_set.splits and name == split:  # Food-101's test rows are the hub's validation
            found = None if local_files.find(folder, [other], data_set.hub_config) is None else found
    return found


def _snapshot(data_set: DataSet, cache: Path | None = None) -> Path | None:
    """The set's folder at the pinned commit, in the hub's cache or a folder of the same layout; no network access."""
    from huggingface_hub import snapshot_download

    where = {"repo_type": "dataset", "revision": data_set.revision, "cache_dir": cache, "local_files_only": True}
    try:
        return Path(snapshot_download(str(data_set.hub_id), **where))  # type: ignore[arg-type]
    except (OSError, ValueError):  # not there
        return None


def _from_hub(data_set: DataSet, split: str, config: DataConfig) -> tuple[Any, str | None]:
    """Load from the hub or, without a network, from its cache; a cache with another revision is refused.

    Offline, files that `hf download` stored are read like a local folder; else the table that `datasets` cached is
    used. A hub that surely cannot be reached is not asked: the libraries would retry for half a minute.
    """
    import datasets
    from huggingface_hub import constants

    unreachable = _without_network()
    snapshot = _snapshot(data_set) if constants.HF_HUB_OFFLINE or unreachable else None
    if snapshot and (files := _in_folder(data_set, split, snapshot)):
        return local_files.read(files, data_set.text_columns), snapshot.name
    try:
        with _offline_mode() if unreachable else nullcontext():
            revision = _commit(data_set)
            table = datasets.load_dataset(
                str(data_set.hub_id), data_set.hub_config, split=data_set.splits[split], revision=revision
            )
    except Exception as error:  # network, authorisation and format errors have no common class
        why = f"did not give it ({error})"
        if unreachable:
            why = f"cannot be reached, and its cache does not give the set ({short_message(error)})"
        others = accepted_sources(data_set, besides="hub")
        raise Unavailable(f"data set {data_set.name}: the hub {why}. {others}") from None
    cached = _cached_commit(table)
    if revision and cached and cached != revision:  # without a network `datasets` takes the newest that it has
        raise Unavailable(
            f"data set {data_set.name}: the hub's cache holds revision {cached}, wanted is {revision}. "
            f"{accepted_sources(data_set, besides='hub')}"
        )
    content.require_sound(table, f"data set {data_set.name}")
    return table, revision or cached


@contextmanager
def _offline_mode() -> Iterator[None]:
    """Let `datasets` and `huggingface_hub` use their caches without a request."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _commit(data_set: DataSet) -> str | None:
    """The pinned commit; else the branch's newest commit from the hub, or None without a network."""
    from huggingface_hub import HfApi, constants

    pinned = data_set.revision
    if constants.HF_HUB_OFFLINE or (pinned and _COMMIT.fullmatch(pinned)):
        return pinned
    return HfApi().dataset_info(str(data_set.hub_id), revision=pinned).sha or pinned


def _cached_commit(table: Any) -> str | None:
    """The commit that a table was made from, taken from the name of its folder in the cache."""
    for file in getattr(table, "cache_files", []):
        if _COMMIT.fullmatch(folder := Path(file["filename"]).parent.name):
            return folder
    return None


def _generated(data_set: DataSet, split: str, config: DataConfig) -> tuple[Any, None]:
    count = EMBEDDED_ROWS[split]
    if split == "train" and config.train_limit is not None:
        if config.train_limit > MOST_GENERATED:
            known = f"at most {MOST_GENERATED:,} where rows are generated (data.source=embedded)"
            raise ConfigError([Problem("data.train_limit", config.train_limit, known)])
        count = max(count, config.train_limit)
    try:
        return _rows_of(generator_of(data_set.name), split, count), None
    except ValueError as error:
        if count == EMBEDDED_ROWS[split]:
            raise
        known = f"as many rows as the generator of {data_set.name} can make ({error})"
        raise ConfigError([Problem("data.train_limit", config.train_limit, known)]) from None


@lru_cache(maxsize=4)
def _rows_of(generator: Callable[..., list[dict[str, Any]]], split: str, count: int) -> list[dict[str, Any]]:
    """Generated rows, cached for later runs of this process (a sweep's worker, a multirun); they never change."""
    return generator(split, count)


def made_rows(data_sets: Sequence[DataSet]) -> str:
    """How rows of data.source=embedded relate to the sets of these names: a stand-in, unless none is published."""
    alone = data_sets and all(data_set.only_generated for data_set in data_sets)
    return "generated, as this data always is" if alone else "generated, not the real set"


def accepted_sources(data_set: DataSet, besides: str = "") -> str:
    return f"Accepted: {source_options(data_set, besides)}."


def source_options(data_set: DataSet, besides: str = "") -> str:
    """For each source but `besides` that may have the data set, a description: folder, or hub id and revision."""
    if data_set.own:
        return "data.train=FILE, and data.test=FILE unless a share of its rows may be taken"
    folder = data_set.folder or data_set.name
    found = [f"data.source=local data.root=FOLDER with {folder}/<split>.parquet (or .jsonl, .csv, ...)"]
    if data_set.prepared_by:
        found[0] += f" (written by {data_set.prepared_by})"
    if data_set.hub_id and besides != "hub":
        name = " ".join(filter(None, [data_set.hub_id, data_set.hub_config]))
        found.append(f"data.source=hub ({name}, revision {data_set.revision or 'main'})")
    if is_generated(data_set.name):
        found.append(f"data.source=embedded ({made_rows([data_set])})")
    return "; ".join(found)
