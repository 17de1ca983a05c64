"""Loading rows from local files, the hub and generators: columns, fingerprints, revisions, draws and refusals."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdsbench.tasks.commonsense  # importing these modules registers their data sets
import sdsbench.tasks.glue
import sdsbench.tasks.gsm8k
import sdsbench.tasks.math
import sdsbench.tasks.vision
import sdsbench.tasks.vtab  # noqa: F401
from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.data import catalogue, content, sources
from sdsbench.data.data_config import DataConfig
from sdsbench.data.draw import draw
from sdsbench.data.generators import is_generated
from sdsbench.data.held_back import load_training


def write_gsm8k(root: Path, rows: int = 30, split: str = "train", **columns: list[str]) -> Path:
    table = columns or {"question": [f"q{i}" for i in range(rows)], "answer": [f"#### {i}" for i in range(rows)]}
    (root / "gsm8k").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), root / "gsm8k" / f"{split}.parquet")
    return root


def local_config(root: Path, **keys: object) -> DataConfig:
    return DataConfig(source="local", root=str(root), **keys)  # type: ignore[arg-type]


def test_local_and_embedded_have_the_same_columns(tmp_path: Path) -> None:
    real = sources.load("gsm8k", "train", local_config(write_gsm8k(tmp_path)))
    made = sources.load("gsm8k", "train", DataConfig(source="embedded"))
    assert set(real[0]) == set(made[0]) == {"question", "answer"}
    assert (real.source, made.source) == ("local", "embedded")


def test_fingerprint_depends_on_content_and_order_only(tmp_path: Path) -> None:
    one = sources.load("gsm8k", "train", local_config(write_gsm8k(tmp_path / "a")))
    path = tmp_path / "a/gsm8k/train.parquet"
    pq.write_table(pq.read_table(path), path, compression="zstd")
    rewritten = sources.load("gsm8k", "train", local_config(tmp_path / "a"))
    other = sources.load("gsm8k", "train", local_config(write_gsm8k(tmp_path / "b", rows=29)))
    assert one.fingerprint == rewritten.fingerprint != other.fingerprint
    assert one.take([1, 0]).fingerprint != one.take([0, 1]).fingerprint


def reference_fingerprint(rows: sources.Rows) -> str:
    """The definition of a fingerprint, row by row and key by key, on which all stored records rely."""
    digest = hashlib.sha256()
    for row in rows:
        for key in sorted(row):
            digest.update(f"{key}\x1f{row[key]!r}\x1e".encode())
    return digest.hexdigest()


def test_fingerprint_computed_in_chunks_equals_the_definition(tmp_path: Path) -> None:
    count = 2 * content.CHUNK + 7
    rows = write_gsm8k(
        tmp_path, question=[f"{i} ü" for i in range(count)], answer=["#### 1"] * count,
        extra=[[i, None] for i in range(count)], number=[i / 7 for i in range(count)],
    )  # fmt: skip
    read = sources.load("gsm8k", "train", local_config(rows))
    drawn = read.take(np.random.default_rng(0).permutation(count)[:1500].tolist())
    for some in (read, drawn, read.take(range(5, 1200)), read.take([3])):
        assert some.fingerprint == reference_fingerprint(some)
    made = sources.load("gsm8k", "test", DataConfig(source="embedded"))
    assert made.fingerprint == reference_fingerprint(made)


def test_fingerprint_of_an_image_is_the_same_encoded_and_decoded() -> None:
    from PIL import Image

    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    file = io.BytesIO()
    image.save(file, "png")
    packed = {"bytes": file.getvalue(), "path": "a.png"}
    assert content.fingerprint([{"image": packed}], [0]) == content.fingerprint([{"image": image}], [0])


def test_message_of_a_missing_split_names_found_files_and_remedies(tmp_path: Path) -> None:
    write_gsm8k(tmp_path)
    with pytest.raises(Unavailable) as caught:
        sources.load("gsm8k", "test", local_config(tmp_path))
    message = str(caught.value)
    for part in ("gsm8k/test.parquet", "gsm8k/train.parquet", "openai/gsm8k", "740312add", "data.source=embedded"):
        assert part in message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + b"\0" * 50])
def test_message_of_a_damaged_file_names_it(tmp_path: Path, content: bytes) -> None:
    write_gsm8k(tmp_path)
    (tmp_path / "gsm8k/train.parquet").write_bytes(content)
    with pytest.raises(Unavailable, match=r"gsm8k.*train\.parquet cannot be read"):
        sources.load("gsm8k", "train", local_config(tmp_path))


def test_message_of_wrong_columns_names_them(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"missing column.*answer.*found question, solution"):
        sources.load("gsm8k", "train", local_config(write_gsm8k(tmp_path, question=["q"], solution=["s"])))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(1, 200))
def test_draw_is_stratified_and_grows_by_adding_rows(classes: list[int], count: int) -> None:
    count = min(count, len(classes))
    drawn = draw(classes, count)
    assert len(set(drawn)) == count and set(draw(classes, count - 1)) <= set(drawn)
    share = count / len(classes)
    for name, size in Counter(classes).items():
        assert abs(sum(classes[position] == name for position in drawn) - share * size) <= len(set(classes)) / 2 + 1


def test_classes_stored_in_blocks_are_drawn_in_proportion() -> None:
    """MATH's rows are sorted by subject: the first 64 are all Algebra."""
    classes = ["Algebra"] * 600 + ["Geometry"] * 300 + ["Prealgebra"] * 100
    found = Counter(classes[position] for position in draw(classes, 50))
    assert abs(found["Algebra"] - 30) <= 1 and abs(found["Geometry"] - 15) <= 1 and abs(found["Prealgebra"] - 5) <= 1


def test_the_draw_is_the_same_in_every_version() -> None:
    """Rows of one class are drawn in the order of one permutation; another seed would compare runs on other rows."""
    generator = np.random.default_rng(20241)
    generator.random()  # the offset of the only class
    assert draw([None] * 80, 20) == sorted(generator.permutation(80)[:20].tolist())


def test_declared_class_column_exists_in_its_data_set() -> None:
    """Draws would silently not be stratified by a column that no row has."""
    with_classes = [name for name in catalogue.names() if catalogue.get(name).classes]
    assert {"glue/rte", "hendrycks_math", "math500", "boolq", "vision/dtd10", "vtab/dtd"} <= set(with_classes)
    assert "glue/stsb" not in with_classes
    for name in filter(is_generated, with_classes):
        rows = sources.load(name, "validation" if name.startswith("glue") else "test", DataConfig(source="embedded"))
        assert catalogue.get(name).classes in rows[0]


def test_train_limit_takes_the_first_rows_or_a_draw_in_file_order(tmp_path: Path) -> None:
    root = write_gsm8k(tmp_path)
    first = load_training("gsm8k", local_config(root, train_limit=5, order="first"))
    assert [row["question"] for row in first] == [f"q{i}" for i in range(5)]
    drawn = [row["question"] for row in load_training("gsm8k", local_config(root, train_limit=5))]
    assert len(set(drawn)) == 5 and drawn != [f"q{i}" for i in range(5)]
    assert drawn == sorted(drawn, key=lambda question: int(question[1:])), "in the order of the file"


PINNED = "740312add88f781978c0658806c59bc2815b9866"


class CachedTable(list[dict[str, str]]):
    """A stand-in for a table of `datasets`, with the cache file that it was read from."""

    features: ClassVar[dict[str, object]] = {}
    data = SimpleNamespace(table=pa.table({}))

    def __init__(self, commit: str) -> None:
        instruction = {"instruction": "Answer format: #### 1", "input": "", "output": "o"}
        super().__init__([{"question": "q", "answer": "#### 1", **instruction}])
        self.cache_files = [{"filename": f"/cache/openai___gsm8k/main/0.0.0/{commit}/gsm8k-test.arrow"}]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Replaces the hub. Holds the arguments of requests; `cached` is the commit of the table that it returns."""
    import datasets
    import huggingface_hub

    state: dict[str, object] = {"cached": PINNED, "infos": 0}

    class HubApi:
        def dataset_info(self, name: str, revision: str | None) -> object:
            if huggingface_hub.constants.HF_HUB_OFFLINE:
                raise huggingface_hub.errors.OfflineModeIsEnabled("offline")
            state["infos"] = 1
            return type("Info", (), {"sha": "a" * 40})

    def load_dataset(*args: object, **keys: object) -> CachedTable:
        state.update(args=args, **keys)
        return CachedTable(str(state["cached"]))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "HfApi", HubApi)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return state


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_hub_loads_the_pinned_revision_without_further_requests(hub: dict[str, object]) -> None:
    rows = sources.load("gsm8k", "test", DataConfig(source="hub"))
    assert hub["args"] == ("openai/gsm8k", "main") and hub["split"] == "test"
    assert rows.revision == hub["revision"] == PINNED and hub["infos"] == 0


def test_unpinned_set_is_loaded_at_the_commit_that_is_recorded(hub: dict[str, object]) -> None:
    hub["cached"] = "a" * 40
    rows = sources.load("commonsense_170k", "train", DataConfig(source="hub"))
    assert rows.revision == hub["revision"] == "a" * 40 and hub["infos"] == 1


@pytest.mark.parametrize("name", ["gsm8k", "commonsense_170k"])
def test_cached_set_is_used_offline(name: str, hub: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    assert sources.load(name, "train", DataConfig(source="hub")).revision == PINNED


def test_cache_of_another_revision_is_refused_offline(hub: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    hub["cached"] = "b" * 40
    with pytest.raises(Unavailable, match=f"cache holds revision {'b' * 40}, wanted is {PINNED}"):
        sources.load("gsm8k", "test", DataConfig(source="hub"))


def test_hub_without_a_network_is_not_asked_and_not_advised(
    hub: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries would ask the hub six times, with half a minute of waits."""
    import datasets
    from huggingface_hub import constants

    offline = []

    def load_dataset(*_: object, **__: object) -> None:
        offline.append((datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE))
        raise ConnectionError("no copy in the cache")

    monkeypatch.setattr(sources, "hub_reachable", lambda: False)
    monkeypatch.setattr(sources, "_hub_connects", lambda _: False)
    monkeypatch.setattr(sources, "getproxies", dict)
    monkeypatch.setattr(sources, "_snapshot", lambda _: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(Unavailable, match="the hub cannot be reached, and its cache") as caught:
        sources.load("gsm8k", "test", DataConfig(source="hub"))
    assert offline == [(True, True)] and not constants.HF_HUB_OFFLINE, "offline for this request alone"
    text = str(caught.value)
    assert "data.source=local" in text and "data.source=embedded" in text and "data.source=hub" not in text


@pytest.mark.local_data
def test_real_gsm8k_test_split_has_1319_rows_with_answers(data_root: Path) -> None:
    rows = sources.load("gsm8k", "test", local_config(data_root))
    assert len(rows) == 1319
    assert "####" in rows[0]["answer"]


def test_train_limit_beyond_the_most_generated_rows_is_refused() -> None:
    """Rows are generated one by one, so a limit of 10^12 would fill the memory."""
    config = DataConfig(source="embedded", train_limit=sources.MOST_GENERATED + 1)
    with pytest.raises(ConfigError, match=r"data.train_limit=1000001: accepted: at most 1,000,000 where rows"):
        load_training("gsm8k", config)


def test_train_limit_beyond_the_rows_that_a_generator_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(split: str, count: int) -> list[dict[str, str]]:
        raise ValueError(f"count={count}: accepted: at most about 5323 rows")

    monkeypatch.setattr(sources, "generator_of", lambda name: rows)
    config = DataConfig(source="embedded", train_limit=20_000)
    with pytest.raises(ConfigError, match=r"data\.train_limit=20000: accepted: as many rows as .* at most about 5323"):
        sources.load("gsm8k", "train", config)
