"""Rows of a data set from one of three sources: the hub, a local folder of parquet, or this package's generators.

One path for all: the same columns come out, with a fingerprint of their content. Nothing is ever substituted: a set
that the chosen source lacks is an error that says what the source has.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import DataUsed
from sdsbench.data import catalogue, content
from sdsbench.data.catalogue import DataSet
from sdsbench.data.data_config import DataConfig
from sdsbench.data.generators import generated_sets, generator_of, is_generated

Source = Literal["hub", "local", "embedded"]
_COMMIT = re.compile("[0-9a-f]{40}")
EMBEDDED_ROWS = {"train": 4000, "validation": 500, "test": 1000}


@dataclass(frozen=True)
class Rows:
    """Rows of one split, and where they came from. Rows are read on demand, so images stay encoded until used."""

    dataset: str
    split: str
    source: Source
    revision: str | None
    table: Any  # datasets.Dataset, or a list of dicts
    indices: tuple[int, ...]  # rows of `table` that count, in order

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.table[self.indices[position]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[position] for position in range(len(self)))

    def take(self, positions: Sequence[int]) -> Rows:
        """These rows only, in this order."""
        return Rows(
            self.dataset, self.split, self.source, self.revision, self.table, tuple(self.indices[p] for p in positions)
        )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the content of the rows in order (not over file bytes, which depend on the writer)."""
        return content.fingerprint(self.table, self.indices)

    def questions(self, columns: Sequence[str] = ()) -> Iterator[str]:
        """What each row asks, in a form that can be compared between sets (data/content.py)."""
        columns = columns or catalogue.get(self.dataset).question_columns
        return content.questions(self.table, self.indices, columns)

    def values(self, column: str) -> list[Any]:
        """What a column holds, row by row; other columns are not read."""
        return list(content.values(self.table, self.indices, column))

    def used(self) -> DataUsed:
        """This data as a line of the record."""
        return DataUsed(
            dataset=self.dataset, split=self.split, source=self.source, revision=self.revision,
            rows=len(self), fingerprint=self.fingerprint,
        )  # fmt: skip


@lru_cache(maxsize=1)
def hub_reachable(seconds: float = 1.5) -> bool:
    """Whether the hub answers; false at once in offline mode."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def load(name: str, split: str, config: DataConfig) -> Rows:
    """All rows of a split (`train`, `validation` or `test`), before any limit. `data.source` must be settled.

    Raises Unavailable, naming what the source has and what would do.
    """
    data_set = catalogue.get(name)
    source: Any = config.source
    require(data_set, split, config)
    readers = {"hub": _from_hub, "local": _from_folder, "embedded": _generated}
    table, revision = readers[source](data_set, split, config)
    rows = Rows(name, split, source, revision, table, tuple(range(len(table))))
    if not len(rows):
        raise Unavailable(f"data set {name}, split {split}: the {source} source has 0 rows")
    missing = [column for column in data_set.columns if column not in rows[0]]
    if missing:
        raise Unavailable(
            f"data set {name}, split {split}, source {source}: missing column(s) {', '.join(missing)}; "
            f"found {', '.join(rows[0])}; accepted: {', '.join(data_set.columns)}"
        )
    return rows


def has_validation(data_set: DataSet, config: DataConfig) -> bool:
    """Whether the source has a validation split of its own for this set."""
    if config.source == "embedded":
        return True
    if config.source == "local":
        return (_folder(data_set, config) / "validation.parquet").is_file()
    return "validation" in data_set.splits


def require(data_set: DataSet, split: str, config: DataConfig) -> None:
    """Raises Unavailable where the catalogue, or a folder that is there, says that the source has no such split."""
    if config.source == "hub" and (data_set.hub_id is None or split not in data_set.splits):
        raise Unavailable(
            f"data set {data_set.name}: the hub source has no split {split!r}; it has "
            f"{', '.join(data_set.splits) if data_set.hub_id else 'nothing of this set'}. {what_would_do(data_set)}"
        )
    if config.source == "embedded" and not is_generated(data_set.name):
        have = ", ".join(generated_sets())
        lacks = f"data set {data_set.name}: the embedded source does not make it; it makes {have}."
        raise Unavailable(f"{lacks} {what_would_do(data_set)}")
    folder = _folder(data_set, config)
    if config.source == "local" and folder.is_dir() and not (folder / f"{split}.parquet").is_file():
        raise _no_file(data_set, split, config)


def _folder(data_set: DataSet, config: DataConfig) -> Path:
    return Path(config.root or "") / (data_set.folder or data_set.name)


def _from_folder(data_set: DataSet, split: str, config: DataConfig) -> tuple[Any, None]:
    import datasets

    path = _folder(data_set, config) / f"{split}.parquet"
    if not path.is_file():
        raise _no_file(data_set, split, config)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it raises
    try:
        return datasets.Dataset.from_parquet(str(path), keep_in_memory=True), None
    except Exception as error:  # pyarrow and datasets raise many kinds for damaged files
        reason = error.__cause__ or error
        raise Unavailable(f"data set {data_set.name}: {path} cannot be read as parquet: {reason}") from None


def _no_file(data_set: DataSet, split: str, config: DataConfig) -> Unavailable:
    root = Path(config.root or "")
    have = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.parquet")) if root.is_dir() else []
    return Unavailable(
        f"data set {data_set.name}: no file {(_folder(data_set, config) / split).relative_to(root)}.parquet below "
        f"data.root={config.root}. It has: {', '.join(have) or 'no parquet file'}. {what_would_do(data_set)}"
    )


def _from_hub(data_set: DataSet, split: str, config: DataConfig) -> tuple[Any, str | None]:
    """From the hub or, without a network, from its cache; a cache that holds another revision is refused."""
    import datasets

    try:
        revision = _commit(data_set)
        table = datasets.load_dataset(
            str(data_set.hub_id), data_set.hub_config, split=data_set.splits[split], revision=revision
        )
    except Exception as error:  # network, authorisation and format errors have no common class
        raise Unavailable(
            f"data set {data_set.name}: the hub did not give it ({error}). {what_would_do(data_set)}"
        ) from None
    cached = _cached_commit(table)
    if revision and cached and cached != revision:  # without a network `datasets` takes the newest that it has
        raise Unavailable(
            f"data set {data_set.name}: the hub's cache holds revision {cached}, wanted is {revision}. "
            f"{what_would_do(data_set)}"
        )
    return table, revision or cached


def _commit(data_set: DataSet) -> str | None:
    """The pinned commit; else the branch's newest, asked of the hub, or None where there is no network."""
    from huggingface_hub import HfApi, constants

    pinned = data_set.revision
    if constants.HF_HUB_OFFLINE or (pinned and _COMMIT.fullmatch(pinned)):
        return pinned
    return HfApi().dataset_info(str(data_set.hub_id), revision=pinned).sha or pinned


def _cached_commit(table: Any) -> str | None:
    """The commit whose files a table was made of: the name of its folder in the cache."""
    for file in getattr(table, "cache_files", []):
        if _COMMIT.fullmatch(folder := Path(file["filename"]).parent.name):
            return folder
    return None


def _generated(data_set: DataSet, split: str, config: DataConfig) -> tuple[Any, None]:
    count = EMBEDDED_ROWS[split]
    if split == "train" and config.train_limit is not None:
        count = max(count, config.train_limit)
    return generator_of(data_set.name)(split, count), None


def what_would_do(data_set: DataSet) -> str:
    return f"What would do: {ways(data_set)}."


def ways(data_set: DataSet) -> str:
    """Each source that can have the set, with folder, hub id and revision."""
    found = [f"data.source=local data.root=FOLDER with {data_set.folder or data_set.name}/<split>.parquet"]
    if data_set.prepared_by:
        found[0] += f" (written by {data_set.prepared_by})"
    if data_set.hub_id:
        name = " ".join(filter(None, [data_set.hub_id, data_set.hub_config]))
        found.append(f"data.source=hub ({name}, revision {data_set.revision or 'main'})")
    if is_generated(data_set.name):
        found.append("data.source=embedded (generated, not the real set)")
    return "; ".join(found)
