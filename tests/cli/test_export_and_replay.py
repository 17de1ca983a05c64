"""A finished run's adapter opens in peft with the run's own outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdsbench.__main__ import main
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from tests.tools import QUIET

FAST = [
    "model=micro", "data.source=embedded", "data.train_limit=32", "train.max_steps=3", "eval.limit=2", "threads=1",
    "eval.untrained=false", "task.max_new_tokens=4", "train.batch_size=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    overrides = [*FAST, "method=sds_lora", "method.warmup_steps=2", f"output_root={root}"]
    return root / execute(compose_run(overrides), QUIET).run_id


def test_peft_and_merged_exports_agree(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import sdsbench

    assert main(["export", str(run), str(tmp_path / "peft")]) == 0
    assert "drift" in capsys.readouterr().out
    assert main(["export", str(run), str(tmp_path / "merged"), "--form", "merged"]) == 0
    micro = Path(sdsbench.__file__).parent / "synthetic" / "micro"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(micro), tmp_path / "peft")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(micro)
    ids = AutoTokenizer.from_pretrained(tmp_path / "merged")("Tom has 12 apples.", return_tensors="pt").input_ids
    with torch.no_grad():
        one, two, three = (model(input_ids=ids).logits for model in (adapted, merged, base))
    assert torch.allclose(one, two, atol=1e-4)
    assert not torch.allclose(one, three, atol=1e-3), "the adapter does something"


def test_a_run_is_named_by_the_beginning_of_its_id(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--runs", str(run.parent)]
    assert main(["export", run.name[:6], str(tmp_path / "peft"), *place]) == 0
    assert (tmp_path / "peft" / "adapter_config.json").is_file()
    capsys.readouterr()
    assert main(["trace", run.name[:6], *place]) == 0
    assert f"run {run.name}  seed 0  done" in capsys.readouterr().out
    assert main(["show", run.name[:6], *place]) == 0
    text = capsys.readouterr().out
    assert "method.name " in text and "sds_lora" in text
    assert text.splitlines()[-1] == f"run {run.name}: done, {run}"
    assert main(["trace", "zz", *place]) == 2


def test_export_refuses(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert main(["export", str(run), str(tmp_path / "full")]) == 2
    assert main(["export", str(tmp_path), str(tmp_path / "new")]) == 2
    assert "a run folder with record.json and adapter/" in capsys.readouterr().err
