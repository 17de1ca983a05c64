"""Data files that are absent, damaged or of other columns: the run fails with a message and changes none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sdsbench.core.run_folder import find_record
from tests.bad_input.damage import assert_refused, file_contents, truncate
from tests.sweeps.tools import TINY


def write_parquet(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = None if rows else pyarrow.schema([("question", pyarrow.string()), ("answer", pyarrow.string())])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)


def write_bytes_as_both_splits(root: Path, content: bytes) -> None:
    for split in ("train", "test"):
        (root / "gsm8k").mkdir(parents=True, exist_ok=True)
        (root / "gsm8k" / f"{split}.parquet").write_bytes(content)


def write_both_splits(root: Path, rows: list[dict[str, str]]) -> None:
    for split in ("train", "test"):
        write_parquet(root / "gsm8k" / f"{split}.parquet", rows)


ROW = {"question": "1 + 1?", "answer": "It is 2. #### 2"}
CASES: list[tuple[str, Callable[[Path], None], str]] = [
    ("no folder", lambda root: None, "no file"),
    ("no test file", lambda root: write_parquet(root / "gsm8k" / "train.parquet", [ROW] * 300), "no file"),
    ("empty file", lambda root: write_bytes_as_both_splits(root, b""), "cannot be read as parquet"),
    ("text", lambda root: write_bytes_as_both_splits(root, b"question,answer\n1,2\n"), "cannot be read as parquet"),
    ("no rows", lambda root: write_both_splits(root, []), "parquet"),
    ("other columns", lambda root: write_both_splits(root, [{"q": "x", "a": "y"}] * 4), "missing column"),
    (
        "truncated",
        lambda root: (write_both_splits(root, [ROW] * 400), truncate(root / "gsm8k" / "train.parquet"))[0],
        "parquet",
    ),
]


@pytest.mark.parametrize(("make", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_data_files_fail_the_run_and_stay_unchanged(
    make: Callable[[Path], None], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    before = file_contents(root)
    words = [word for word in TINY if not word.startswith("data.source")]
    place = ["method=lora", "data.source=local", f"data.root={root}", f"output_root={tmp_path / 'runs'}"]
    assert_refused(capsys, [*words, *place], 3, "gsm8k", expected)
    assert file_contents(root) == before
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = find_record(path.parent, print)
    assert record is not None
    assert record.status == "failed"
    assert record.failure is not None
    assert expected in record.failure.message
