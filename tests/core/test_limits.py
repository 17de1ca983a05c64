"""Each limit on what others send: what is larger is one line that names the limit and the variable that raises it."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from PIL import Image

from sdsbench.core import limits, samples, step_log
from sdsbench.core.errors import SdsbenchError
from sdsbench.core.limits import Limit
from sdsbench.core.run_folder import read_record
from sdsbench.data import local_files
from sdsbench.data.content import decoded
from sdsbench.results.bundles.opened import opened
from sdsbench.results.bundles.write import write
from sdsbench.results.importers import peft_results
from sdsbench.sweeps import plan as plans
from tests.conftest import ROOT
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.results.test_importers import RESULT
from tests.sweeps.tools import put_record, tiny_plan

LIMITS = {name: value for name, value in vars(limits).items() if isinstance(value, Limit)}


def _run(folder: Path) -> Path:
    steps = [{"kind": "train", "step": step, "loss": 1.0} for step in (1, 2)]
    return write_run(folder, make_record("lora", 0, {"gsm8k": 0.5}), {"gsm8k": make_samples([True, False])}, steps)


def _bundle(folder: Path) -> Path:
    plan = tiny_plan(folder, "seed=0")
    put_record(plan, folder / "runs", next(iter(plan.manifest.runs)))
    write(folder / "a.zip", [folder / "runs"])
    return folder / "a.zip"


def _result(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(RESULT))
    return folder / "a.json"


def _image(_: Path) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (40, 40)).save(buffer, "png")
    return buffer.getvalue()


def _rows(folder: Path) -> Path:
    datasets.Dataset.from_dict({"question": ["q"] * 3}).to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def _packed_rows(folder: Path) -> Path:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"question": "q"}\n'))
    return folder / "a.jsonl.gz"


def _data(path: Path) -> object:
    return local_files.read(local_files.of_path(path), None)


READ: dict[str, tuple[Callable[[Path], object], Callable[..., object]]] = {
    "RECORD": (lambda folder: _run(folder) / "record.json", read_record),
    "STEPS": (lambda folder: _run(folder) / "metrics.jsonl", step_log.read),
    "ANSWERS": (lambda folder: samples.path_of(_run(folder), "gsm8k", "trained"), samples.read),
    "MANIFEST": (lambda folder: tiny_plan(folder, "seed=0").folder, plans.read),
    "EXTERNAL": (_result, peft_results.read),
    "BUNDLE": (_bundle, opened),
    "ENTRIES": (_bundle, opened),
    "DATA": (_packed_rows, _data),
    "ROWS": (_rows, _data),
    "PIXELS": (_image, lambda content: decoded({"bytes": content})),
}


def test_every_limit_is_tried_here_and_named_in_the_page_on_security() -> None:
    assert set(LIMITS) == set(READ)
    page = (ROOT / "SECURITY.md").read_text()
    for name, limit in LIMITS.items():
        assert limit.key == f"SDSBENCH_LIMIT_{name}"
        assert f"| `{limit.key}` | {limit.what} | {limit.default:,} {limit.unit} |" in page


@pytest.mark.parametrize("name", READ)
def test_what_is_larger_is_one_line_with_the_limit_and_its_variable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, read = READ[name]
    given = []
    for place in ("within", "beyond"):
        (tmp_path / place).mkdir()
        given.append(make(tmp_path / place))
    read(given[0])
    monkeypatch.setenv(LIMITS[name].key, "2")
    with pytest.raises(SdsbenchError) as caught:
        read(given[1])
    text = str(caught.value)
    assert f"more than 2 {LIMITS[name].unit}, the limit; {LIMITS[name].key}=NUMBER in the environment raises it" in text
    assert "\n" not in text and caught.value.exit_code == 3
