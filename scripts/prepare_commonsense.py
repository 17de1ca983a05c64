"""Write LLM-Adapters' commonsense JSON files as the parquet files that data.source=local reads.

    git clone https://github.com/AGI-Edgerunners/LLM-Adapters
    python scripts/prepare_commonsense.py LLM-Adapters data      then: data.source=local data.root=data

It reads <folder>/dataset/<benchmark>/{train,test}.json and <folder>/ft-training_set/commonsense_170k.json (both also
without dataset/ and ft-training_set/). Every test set and the mixture must exist; train.json is needed for tuning only.
If a file has other columns or another number of rows than the published one, nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdsbench.core.errors import SdsbenchError, Unavailable
from sdsbench.data import catalogue
from sdsbench.tasks.commonsense import BENCHMARKS, COLUMNS

MIXTURE = "commonsense_170k"
COUNTS: Mapping[tuple[str, str], int] = {  # (data set, split) -> rows as published
    (MIXTURE, "train"): 170_420,
    ("boolq", "test"): 3270, ("boolq", "train"): 9427,
    ("piqa", "test"): 1838, ("piqa", "train"): 16_113,
    ("social_i_qa", "test"): 1954, ("social_i_qa", "train"): 33_410,
    ("hellaswag", "test"): 10_042, ("hellaswag", "train"): 39_905,
    ("winogrande", "test"): 1267, ("winogrande", "train"): 63_238,
    ("arc_easy", "test"): 2376, ("arc_easy", "train"): 2251,
    ("arc_challenge", "test"): 1172, ("arc_challenge", "train"): 1119,
    ("openbookqa", "test"): 500, ("openbookqa", "train"): 4957,
}  # fmt: skip


def convert(source: Path, target: Path, counts: Mapping[tuple[str, str], int] = COUNTS) -> list[str]:
    """Write all parquet files below `target` and return a line for each. Raises Unavailable with all problems."""
    tables, problems = {}, []
    for (name, split), count in counts.items():
        try:
            rows = _read(source, name, split, count)
        except Unavailable as error:
            problems.append(str(error))
            continue
        if rows is not None:
            tables[f"{catalogue.get(name).folder}/{split}.parquet"] = rows
    if problems:
        raise Unavailable("nothing was written:\n  " + "\n  ".join(problems))
    for path, rows in tables.items():
        _write(target / path, rows)
    return [f"{path}: {len(rows)} rows" for path, rows in tables.items()]


def _read(source: Path, name: str, split: str, count: int) -> list[dict[str, str]] | None:
    """The rows of a file; None if it is a benchmark's train.json and missing. Raises Unavailable for a bad file."""
    if name == MIXTURE:
        places = [source / "ft-training_set" / f"{MIXTURE}.json", source / f"{MIXTURE}.json"]
    else:
        folder = BENCHMARKS[name][0].split("/")[1]
        places = [source / "dataset" / folder / f"{split}.json", source / folder / f"{split}.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        if name in BENCHMARKS and split == "train":
            return None
        raise Unavailable(f"{name}, {split}: no file {' or '.join(map(str, places))}")
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Unavailable(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list) or len(rows) != count:
        found = f"{len(rows)} rows" if isinstance(rows, list) else "no list of rows"
        raise Unavailable(f"{path}: {found}; accepted: {count}, as published")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(row.get(column), str) for column in COLUMNS):
            raise Unavailable(f"{path}: row {number} has not the columns {', '.join(COLUMNS)}, all texts")
    return [{column: row[column] for column in COLUMNS} for row in rows]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(rows), temporary, compression="zstd")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="LLM-Adapters' folder, or one with its JSON files")
    parser.add_argument("target", type=Path, help="the folder to give as data.root")
    given = parser.parse_args(arguments)
    try:
        print("\n".join(convert(given.source, given.target)))
    except SdsbenchError as error:
        print(f"prepare_commonsense: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
