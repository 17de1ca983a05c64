"""Local data in every supported layout is read alike, and anything else is refused with a helpful message."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

import sdsbench.tasks.commonsense
import sdsbench.tasks.gsm8k
import sdsbench.tasks.math_training
import sdsbench.tasks.vision  # noqa: F401
from sdsbench.core.errors import Unavailable
from sdsbench.data import local_files, sources
from sdsbench.data.data_config import DataConfig

ROWS = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(7)]
PINNED = "740312add88f781978c0658806c59bc2815b9866"


def dataset(rows: list[dict[str, str]] = ROWS) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows)


def json_lines(rows: list[dict[str, str]] = ROWS) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_shards(folder: Path, split: str = "train", only: tuple[int, ...] = (0, 1, 2)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in only:
        dataset().shard(3, i, contiguous=True).to_parquet(folder / f"{split}-{i:05d}-of-00003.parquet")


def write_hub_download(folder: Path) -> None:
    """The files that `hf download openai/gsm8k --repo-type dataset --local-dir gsm8k` writes."""
    for configuration, suffix in (("main", ""), ("socratic", " How do you know?")):
        (folder / configuration).mkdir(parents=True)
        rows = [{"question": row["question"] + suffix, "answer": row["answer"]} for row in ROWS]
        for split in ("train", "test"):
            dataset(rows).to_parquet(folder / configuration / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: main\n---\n# GSM8K\n")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    cache = folder / ".cache" / "huggingface" / "download" / "main"
    cache.mkdir(parents=True)
    (cache / "train-00000-of-00001.parquet.metadata").write_text(PINNED)


def write_text(path: Path, text: str) -> None:
    """Write the text, compressed if the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def write_parquet(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset().to_parquet(path)


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "parquet": lambda root: write_parquet(root / "gsm8k/train.parquet"),
    "shards": lambda root: write_shards(root / "gsm8k"),
    "shards in data": lambda root: write_shards(root / "gsm8k/data"),
    "shards in the configuration": lambda root: write_shards(root / "gsm8k/main"),
    "hf download": lambda root: write_hub_download(root / "gsm8k"),
    "the hub's own name": lambda root: write_hub_download(root / "openai/gsm8k"),
    "a folder of the split": lambda root: write_parquet(root / "gsm8k/main/train/0000.parquet"),
    "jsonl": lambda root: write_text(root / "gsm8k/train.jsonl", json_lines()),
    "jsonl.gz": lambda root: write_text(root / "gsm8k/train.jsonl.gz", json_lines()),
    "lines named json": lambda root: write_text(root / "gsm8k/train.json", json_lines()),
    "a JSON list": lambda root: write_text(root / "gsm8k/train.json", json.dumps(ROWS, indent=1)),
    "csv": lambda root: (root / "gsm8k").mkdir() or dataset().to_csv(root / "gsm8k/train.csv", index=False),
    "tsv": lambda root: (root / "gsm8k").mkdir() or dataset().to_csv(root / "gsm8k/train.tsv", index=False, sep="\t"),
    "save_to_disk": lambda root: datasets.DatasetDict(train=dataset(), test=dataset()).save_to_disk(root / "gsm8k"),
    "save_to_disk of one split": lambda root: (
        datasets.Dataset.from_list(ROWS, split="train").save_to_disk(root / "gsm8k") or root
    ),
    "save_to_disk with a format": lambda root: datasets.DatasetDict(
        train=dataset().with_format("numpy", ["question"])
    ).save_to_disk(root / "gsm8k"),
    "hub cache": lambda root: write_hub_download(root / f"datasets--openai--gsm8k/snapshots/{PINNED}"),
}


def local_config(root: Path, **keys: object) -> DataConfig:
    return DataConfig(source="local", root=str(root), **keys)  # type: ignore[arg-type]


@pytest.fixture
def fingerprint(tmp_path: Path) -> str:
    """The fingerprint of the rows in the plainest layout."""
    write_parquet(tmp_path / "plain/gsm8k/train.parquet")
    return sources.load("gsm8k", "train", local_config(tmp_path / "plain")).fingerprint


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows_and_fingerprint(layout: str, tmp_path: Path, fingerprint: str) -> None:
    LAYOUTS[layout](tmp_path)
    rows = sources.load("gsm8k", "train", local_config(tmp_path))
    assert list(rows) == ROWS
    assert rows.fingerprint == fingerprint


@pytest.mark.local_data
def test_real_gsm8k_in_the_layout_of_a_hub_download(data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k"
    write_hub_download(folder)
    for split in ("train", "test"):
        shutil.copy(data_root / f"gsm8k/{split}.parquet", folder / f"main/{split}-00000-of-00001.parquet")
    for split in ("train", "test"):
        rows = sources.load("gsm8k", split, local_config(tmp_path))
        assert len(rows) > 1000
        assert rows.fingerprint == sources.load("gsm8k", split, local_config(data_root)).fingerprint


def test_single_json_list_of_any_name_is_the_training_split(tmp_path: Path) -> None:
    """As in the repositories of MetaMathQA and LLM-Adapters."""
    rows = [{"query": "q", "response": "r", "type": "GSM_Rephrased", "original_question": "o"}] * 3
    write_text(tmp_path / "MetaMathQA/MetaMathQA-395K.json", json.dumps(rows))
    assert len(sources.load("metamathqa", "train", local_config(tmp_path))) == 3
    write_text(tmp_path / "MetaMathQA/other.json", json.dumps(rows))
    with pytest.raises(Unavailable, match="metamathqa: no file"):
        sources.load("metamathqa", "train", local_config(tmp_path))


def test_single_file_named_test_is_not_the_training_split(tmp_path: Path) -> None:
    write_text(tmp_path / "metamathqa/gsm_test.json", json.dumps([{"query": "q", "response": "r"}]))
    with pytest.raises(Unavailable, match=r"no file metamathqa/train\.parquet"):
        sources.load("metamathqa", "train", local_config(tmp_path))


def test_snapshot_in_the_hub_cache_is_read_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fingerprint: str
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub._snapshot_download.constants, "HF_HUB_CACHE", str(tmp_path))
    write_hub_download(tmp_path / f"datasets--openai--gsm8k/snapshots/{PINNED}")
    rows = sources.load("gsm8k", "train", DataConfig(source="hub"))
    assert (rows.fingerprint, rows.revision, rows.source) == (fingerprint, PINNED, "hub")


def test_reported_split_named_validation_on_the_hub_is_not_used_for_tuning(tmp_path: Path) -> None:
    """The hub calls Food-101's test split `validation`; tuning on it would be tuning on the reported rows."""
    from sdsbench.data import catalogue

    write_shards(tmp_path / "food101/data", "validation")
    assert not sources.has_validation(catalogue.get("vision/food101"), local_config(tmp_path))


REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a lost shard": (lambda root: write_shards(root / "gsm8k", only=(0, 2)), ("2 of the shards of split train",)),
    "files of two formats": (
        lambda root: (
            write_parquet(root / "gsm8k/train.parquet"),
            write_text(root / "gsm8k/train.jsonl", json_lines()),
        ),
        ("train.jsonl, train.parquet could each be the split", "Move the others away"),
    ),
    "two endings of one format": (
        lambda root: [
            write_text(root / f"gsm8k/{name}", json_lines()) for name in ("train.json", "train.jsonl.gz", "notes.json")
        ],
        ("gsm8k: train.json, train.jsonl.gz could each be the split",),
    ),
    "two copies in a folder of the split": (
        lambda root: [
            write_text(root / f"gsm8k/train/{name}", json_lines()) for name in ("0.jsonl", "1.jsonl", "1.jsonl.gz")
        ],
        ("gsm8k/train: 1.jsonl, 1.jsonl.gz could each be the split",),
    ),
    "comma- and tab-separated files": (
        lambda root: [write_text(root / f"gsm8k/train/{name}", "question,answer\n") for name in ("0.csv", "1.tsv")],
        ("gsm8k/train: 0.csv, 1.tsv could each be the split",),
    ),
    "a file beside a folder of the split": (
        lambda root: [write_text(root / f"gsm8k/{name}", json_lines()) for name in ("train.jsonl", "train/0.jsonl")],
        ("gsm8k: train/0.jsonl, train.jsonl could each be the split",),
    ),
    "a file beside save_to_disk": (
        lambda root: (
            datasets.DatasetDict(train=dataset()).save_to_disk(root / "gsm8k"),
            write_text(root / "gsm8k/data/train.jsonl", json_lines()),
        ),
        ("gsm8k: train/state.json, data/train.jsonl could each be the split",),
    ),
    "a cell more than the header": (
        lambda root: write_text(root / "gsm8k/train.csv", "question,answer\n0,1, so #### 1\n1,2,so #### 2\n"),
        ("train.csv: its header names 2 columns, its first row has 3 cells",),
    ),
    "another split": (
        lambda root: write_text(root / "gsm8k/test.jsonl", json_lines()),
        ("no file gsm8k/train.parquet", "It has: gsm8k/test.jsonl", "openai/gsm8k"),
    ),
    "an unknown layout": (
        lambda root: write_text(root / "notes/mine.jsonl", json_lines()),
        (
            "It has: notes/mine.jsonl",
            "load_dataset('json', data_files='notes/mine.jsonl')['train'].to_parquet('gsm8k/train.parquet')",
        ),
    ),
    "an LFS pointer": (
        lambda root: write_text(
            root / "gsm8k/train.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        ),
        ("git lfs pull",),
    ),
    "0 rows": (
        lambda root: (root / "gsm8k").mkdir() or dataset().select([]).to_parquet(root / "gsm8k/train.parquet"),
        ("train.parquet cannot be read as parquet: it has 0 rows",),
    ),
    "0 lines": (
        lambda root: write_text(root / "gsm8k/train.jsonl", ""),
        ("train.jsonl cannot be read as json: it has 0 rows",),
    ),
    "0 rows of save_to_disk": (
        lambda root: datasets.DatasetDict(train=dataset().select([])).save_to_disk(root / "gsm8k"),
        ("cannot be read as a folder of save_to_disk: it has 0 rows",),
    ),
    "no JSON": (lambda root: write_text(root / "gsm8k/train.jsonl", "{]"), ("train.jsonl cannot be read as json",)),
    "no folder": (lambda root: root, ("there is no such folder", "FILE.jsonl")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unreadable_data_is_refused_with_a_helpful_message(case: str, tmp_path: Path) -> None:
    make, parts = REFUSED[case]
    make(tmp_path)
    root = tmp_path / "nothing" if case == "no folder" else tmp_path
    with pytest.raises(Unavailable) as caught:
        sources.load("gsm8k", "train", local_config(root))
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.exit_code == 3


def test_conversion_command_in_the_message_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "mine.jsonl", json_lines())
    with pytest.raises(Unavailable) as caught:
        sources.load("gsm8k", "train", local_config(tmp_path))
    code = str(caught.value).partition('python -c "')[2].rstrip('"')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gsm8k").mkdir()
    exec(code)  # noqa: S102 - the line that the message tells users to run
    assert list(sources.load("gsm8k", "train", local_config(tmp_path))) == ROWS


def test_csv_values_stay_text_where_the_columns_are_text(tmp_path: Path) -> None:
    """pandas would read 007 as a number and NA as a missing value."""
    write_text(tmp_path / "metamathqa/train.csv", "query,response\nNA,007\n1,None\n")
    rows = sources.load("metamathqa", "train", local_config(tmp_path))
    assert [tuple(row.values()) for row in rows] == [("NA", "007"), ("1", "None")]


@pytest.mark.parametrize(
    "state",
    ["{", "[]", "[" * 100_000, '{"_data_files": 7}', '{"_data_files": [1]}', '{"_data_files": [{"filename": "../x"}]}'],
    ids=lambda text: text[:30],
)
def test_save_to_disk_folder_with_a_damaged_or_foreign_state_is_refused(state: str, tmp_path: Path) -> None:
    """`datasets` would read any file that state.json names, also outside of the folder."""
    for folder in (tmp_path / "gsm8k" / "train", tmp_path / "gsm8k"):
        dataset().save_to_disk(folder)
        (folder / "state.json").write_text(state)
        with pytest.raises(Unavailable, match=r"state\.json"):
            sources.load("gsm8k", "train", DataConfig(source="local", root=str(tmp_path)))
        shutil.rmtree(tmp_path / "gsm8k")


def test_missing_file_of_save_to_disk_is_not_read_as_0_rows(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "gsm8k" / "train")
    (shard,) = (tmp_path / "gsm8k" / "train").glob("*.arrow")
    shard.unlink()
    with pytest.raises(Unavailable, match=rf"cannot be read as a folder of save_to_disk: .*{shard.name}"):
        sources.load("gsm8k", "train", local_config(tmp_path))


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
def test_error_of_text_that_is_not_utf8_names_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("jsonl"):
        path.write_bytes(b'{"question": "caf\xa3"}\n')
    else:
        column = pyarrow.array([b"caf\xa3"]).view(pyarrow.string())
        pyarrow.parquet.write_table(pyarrow.table({"question": column}), path)
    with pytest.raises(Unavailable, match=rf"{name} cannot be read as .*(?i:utf)"):
        local_files.read(local_files.of_path(path), None)
