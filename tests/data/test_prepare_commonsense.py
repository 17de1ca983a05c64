"""scripts/prepare_commonsense.py converts LLM-Adapters' JSON files into parquet files that data.source=local reads."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sdsbench.core.errors import Unavailable
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.data_source import require_data, resolve_source
from sdsbench.runs.run_data import load_run
from sdsbench.tasks.commonsense import BENCHMARKS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("prepare_commonsense", ROOT / "scripts" / "prepare_commonsense.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rows(name: str, split: str, count: int) -> list[dict[str, str]]:
    text = "{} {} row {}\n\nAnswer format: true/false"
    answer = {"input": "", "output": "the correct answer is true", "answer": "true"}
    return [{"instruction": text.format(name, split, i), **answer} for i in range(count)]


@pytest.fixture
def llm_adapters(tmp_path: Path) -> Path:
    """A folder in LLM-Adapters' layout with three rows per file; HellaSwag has no train.json."""
    mixture = []
    for name, (folder, _) in BENCHMARKS.items():
        place = tmp_path / "LLM-Adapters" / "dataset" / folder.split("/")[1]
        place.mkdir(parents=True)
        (place / "test.json").write_text(json.dumps(rows(name, "test", 3)))
        if name != "hellaswag":
            (place / "train.json").write_text(json.dumps(rows(name, "train", 3)))
        mixture += rows(name, "train", 3)
    (tmp_path / "LLM-Adapters" / "ft-training_set").mkdir()
    (tmp_path / "LLM-Adapters" / "ft-training_set" / "commonsense_170k.json").write_text(json.dumps(mixture))
    return tmp_path / "LLM-Adapters"


def counts(script: ModuleType) -> dict[tuple[str, str], int]:
    """The row counts of `llm_adapters`, in place of the published ones."""
    return {key: 24 if key[0] == script.MIXTURE else 3 for key in script.COUNTS}


def test_published_counts_add_up(script: ModuleType) -> None:
    trains = [count for (name, split), count in script.COUNTS.items() if split == "train" and name != script.MIXTURE]
    assert len(trains) == 8 and sum(trains) == script.COUNTS[script.MIXTURE, "train"]


def test_task_reads_the_converted_files(script: ModuleType, llm_adapters: Path, tmp_path: Path) -> None:
    lines = script.convert(llm_adapters, tmp_path / "data", counts(script))
    assert len(lines) == 1 + 8 + 7 and "commonsense/ARC-Easy/test.parquet: 3 rows" in lines
    words = ["model=micro", "data.source=local", f"data.root={tmp_path / 'data'}"]
    run = load_run(resolve_source(compose_run([*words, "task=commonsense"]))[0])
    assert len(run.training) == 24 and [len(found) for _, found in run.evaluations] == [3] * 8
    tuned = load_run(
        resolve_source(
            compose_run([*words, "task=commonsense/piqa", "eval.split=validation", "data.validation_rows=2"])
        )[0]
    )
    assert len(tuned.training) == 22, "the two rows that tuning is scored on are not trained on"


def test_message_names_every_problem_and_nothing_is_written(
    script: ModuleType, llm_adapters: Path, tmp_path: Path
) -> None:
    (llm_adapters / "dataset" / "boolq" / "test.json").write_text("[")
    (llm_adapters / "dataset" / "piqa" / "test.json").write_text(json.dumps([{"instruction": "x"}] * 3))
    (llm_adapters / "dataset" / "winogrande" / "test.json").write_text(json.dumps(rows("w", "test", 2)))
    (llm_adapters / "dataset" / "openbookqa" / "test.json").unlink()
    with pytest.raises(Unavailable) as caught:
        script.convert(llm_adapters, tmp_path / "data", counts(script))
    for part in ("boolq/test.json: not JSON", "piqa/test.json: row 0 has not the columns", "openbookqa, test: no file",
                 "winogrande/test.json: 2 rows; accepted: 3"):  # fmt: skip
        assert part in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_row_counts_other_than_the_published_are_refused(
    script: ModuleType, llm_adapters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(llm_adapters), str(tmp_path / "data")]) == 3
    assert "commonsense_170k.json: 24 rows; accepted: 170420" in capsys.readouterr().err


def test_message_for_the_hub_names_the_script() -> None:
    config = compose_run(["model=micro", "task=commonsense/boolq", "data.source=hub"])
    with pytest.raises(Unavailable, match=r"boolq.*python scripts/prepare_commonsense\.py"):
        require_data(config)
