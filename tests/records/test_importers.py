"""Results of other tools: read from the shapes that the tools really write."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.errors import DamagedFile, Unavailable
from sdsbench.records.importers import external, peft, wandb

# Keys and nesting as in peft's method_comparison/MetaMathQA/results/lora--llama-3.2-3B-rank32.json.
RESULT = {
    "run_info": {
        "experiment_name": "lora/llama-3.2-3B-rank32",
        "train_config": {"model_id": "meta-llama/Llama-3.2-3B", "seed": 0, "optimizer_kwargs": {"lr": 0.0001}},
        "peft_config": {"peft_type": "LORA", "r": 32},
    },
    "train_info": {
        "cuda_memory_max": 22273851392,
        "train_time": 1796.1,
        "num_trainable_params": 9175040,
        "status": "success",
        "metrics": [
            {"step": 250, "valid accuracy": 0.34, "train loss": 0.98},
            {"step": 5000, "test accuracy": 0.482, "train loss": 0.607},
        ],
    },
    "meta_info": {
        "dataset_info": {"metamath": {}, "gsm8k": {}},
        "package_info": {"peft-version": "0.15.2", "torch-version": "2.7.1"},
        "system_info": {"gpu": "NVIDIA L40S"},
    },
}


def test_peft_result(tmp_path: Path) -> None:
    path = tmp_path / "lora.json"
    path.write_text(json.dumps(RESULT))
    record = peft.read(path)
    assert (record.method, record.rank, record.seed, record.lr) == ("LORA", 32, 0, 1e-4)
    assert record.scores == {"test accuracy": 0.482, "train loss": 0.607}
    assert record.trainable == 9175040 and record.task == "gsm8k, metamath"
    assert record.made_with == "peft 0.15.2, torch 2.7.1, NVIDIA L40S"


def test_full_fine_tuning_has_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "full.json"
    path.write_text(json.dumps({**RESULT, "run_info": {**RESULT["run_info"], "peft_config": None}}))
    assert peft.read(path).method == "full fine-tuning"


@pytest.mark.parametrize("text", ["{}", "no json", '{"run_info": 3, "train_info": {}, "meta_info": {}}', "[]"])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DamagedFile, match="not a result"):
        peft.read(path)


def test_a_real_wandb_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What W&B leaves as text after an offline run decides what can be imported; without it the message says so."""
    package = pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    settings = package.Settings(console="off", silent=True)
    run = package.init(mode="offline", dir=str(tmp_path), project="p", config={"lr": 0.1, "seed": 3}, settings=settings)
    run.log({"accuracy": 0.5})
    run.log({"accuracy": 0.75})
    run.finish()
    folders = wandb.run_folders(tmp_path / "wandb")
    assert len(folders) == 1
    if os.path.exists(folders[0] / "files" / "wandb-summary.json"):
        record = wandb.read(folders[0])
        assert record.scores["accuracy"] == 0.75
        assert (record.lr, record.seed) == (0.1, 3) or not (folders[0] / "files" / "config.yaml").exists()
    else:
        with pytest.raises(Unavailable, match="wandb sync"):
            wandb.read(folders[0])


def test_wandb_folder_with_summary(tmp_path: Path) -> None:
    files = tmp_path / "run-1" / "files"
    files.mkdir(parents=True)
    (files / "wandb-summary.json").write_text('{"eval": {"accuracy": 0.7}, "_runtime": 12, "note": "x", "bad": NaN}')
    (files / "config.yaml").write_text(
        "method:\n  value: {name: lora, rank: 8}\nseed:\n  value: 1\n_wandb:\n  value: {}\n"
    )
    record = wandb.read(tmp_path / "run-1")
    assert record.scores == {"eval.accuracy": 0.7} and record.train_seconds == 12
    assert (record.method, record.rank, record.seed) == ("lora", 8, 1)
    (files / "wandb-summary.json").write_text("{")
    with pytest.raises(DamagedFile):
        wandb.read(tmp_path / "run-1")


def test_the_verb_writes_records_that_reports_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(json.dumps(RESULT))
    assert main(["external", "peft", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert [record.name for record in external.read_all(tmp_path / "out")] == ["lora/llama-3.2-3B-rank32"]
    assert main(["external", "wandb", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 3
    (tmp_path / "out" / "peft" / "broken.json").write_text("{}")
    with pytest.raises(DamagedFile):
        external.read_all(tmp_path / "out")
