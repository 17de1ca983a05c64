"""Input beyond a limit is refused with one line that names the limit and the environment variable that raises it."""

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
from sdsbench.results.importers import peft
from sdsbench.sweeps import plan as plans
from tests.conftest import ROOT
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.results.test_importers import RESULT
from tests.sweeps.tools import put_record, tiny_plan

LIMITS = {name: value for name, value in vars(limits).items() if isinstance(value, Limit)}


def write_small_run(folder: Path) -> Path:
    steps = [{"kind": "train", "step": step, "loss": 1.0} for step in (1, 2)]
    return write_run(folder, make_record("lora", 0, {"gsm8k": 0.5}), {"gsm8k": make_samples([True, False])}, steps)


def write_small_bundle(folder: Path) -> Path:
    plan = tiny_plan(folder, "seed=0")
    put_record(plan, folder / "runs", next(iter(plan.manifest.runs)))
    write(folder / "a.zip", [folder / "runs"])
    return folder / "a.zip"


def write_result(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(RESULT))
    return folder / "a.json"


def encoded_image(_: Path) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (40, 40)).save(buffer, "png")
    return buffer.getvalue()


def write_rows(folder: Path) -> Path:
    datasets.Dataset.from_dict({"question": ["q"] * 3}).to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def write_packed_rows(folder: Path) -> Path:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"question": "q"}\n'))
    return folder / "a.jsonl.gz"


def read_data(path: Path) -> object:
    return local_files.read(local_files.of_path(path), None)


CASES: dict[str, tuple[Callable[[Path], object], Callable[..., object]]] = {
    "RECORD": (lambda folder: write_small_run(folder) / "record.json", read_record),
    "STEPS": (lambda folder: write_small_run(folder) / "metrics.jsonl", step_log.read),
    "ANSWERS": (lambda folder: samples.path_of(write_small_run(folder), "gsm8k", "trained"), samples.read),
    "MANIFEST": (lambda folder: tiny_plan(folder, "seed=0").folder, plans.read),
    "EXTERNAL": (write_result, peft.read),
    "BUNDLE": (write_small_bundle, opened),
    "ENTRIES": (write_small_bundle, opened),
    "DATA": (write_packed_rows, read_data),
    "ROWS": (write_rows, read_data),
    "PIXELS": (encoded_image, lambda content: decoded({"bytes": content})),
}
"""Name of a limit -> (a function that makes input in a folder, the function that reads it)."""


def test_every_limit_is_tested_here_and_documented_in_security_md() -> None:
    assert set(LIMITS) == set(CASES)
    page = (ROOT / "SECURITY.md").read_text()
    for name, limit in LIMITS.items():
        assert limit.key == f"SDSBENCH_LIMIT_{name}"
        assert f"| `{limit.key}` | {limit.what} | {limit.default:,} {limit.unit} |" in page


@pytest.mark.parametrize("name", CASES)
def test_larger_input_is_refused_with_the_limit_and_its_variable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, read = CASES[name]
    inputs = []
    for place in ("within", "beyond"):
        (tmp_path / place).mkdir()
        inputs.append(make(tmp_path / place))
    read(inputs[0])
    monkeypatch.setenv(LIMITS[name].key, "2")
    with pytest.raises(SdsbenchError) as caught:
        read(inputs[1])
    text = str(caught.value)
    assert f"more than 2 {LIMITS[name].unit}, the limit; {LIMITS[name].key}=NUMBER in the environment raises it" in text
    assert "\n" not in text and caught.value.exit_code == 3
