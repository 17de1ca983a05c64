"""Runs of PEFT's tuners end to end: stopped and resumed, saved, exported and recorded."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdsbench.__main__ import main
from sdsbench.core import step_log
from sdsbench.core.errors import Interrupted
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.training.loop import StepReport, Training
from sdsbench.training.state import TrainState
from tests.runs.test_resume import SELF_SIGNALLING
from tests.tools import QUIET

pytest.importorskip("peft")

COMMAND = [
    "model=micro", "data.source=embedded", "train.max_steps=8", "train.checkpoint_every=3", "train.batch_size=4",
    "threads=1", "eval.limit=2", "eval.untrained=false", "task.max_new_tokens=4", "data.train_limit=32",
]  # fmt: skip
TUNER_OPTIONS = {
    "boft": "{boft_dropout: 0.2}",
    "fourierft": "null",
    "hra": "null",
    "ia3": "null",
    "loha": "{rank_dropout: 0.2, module_dropout: 0.2}",
    "miss": "{r: 8}",
    "oft": "null",
    "pvera": "{r: 16}",
    "randlora": "null",
    "vera": "{vera_dropout: 0.2}",
}


def words(kind: str, root: Path) -> list[str]:
    return [
        *COMMAND,
        "method=peft",
        f"method.type={kind}",
        f"method.options={TUNER_OPTIONS[kind]}",
        f"output_root={root}",
    ]


def finish(overrides: list[str]) -> tuple[Path, Record]:
    record = execute(compose_run(overrides), QUIET)
    root = next(word.removeprefix("output_root=") for word in overrides if word.startswith("output_root="))
    return Path(root) / record.run_id, record


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in step_log.read(folder / "metrics.jsonl") if line["kind"] == "train"]


def assert_equal(one: tuple[Path, Record], other: tuple[Path, Record]) -> None:
    assert losses(one[0]) == losses(other[0]) and len(losses(one[0])) == 8
    assert one[1].scores == other[1].scores
    tensors, others = (load_file(folder / "adapter" / "adapter.safetensors") for folder, _ in (one, other))
    assert tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_resumed_run_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    step = Training.step

    def step_and_signal(self: Training, state: TrainState) -> StepReport:
        if state.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, state)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Training, "step", step_and_signal)
        finish(words("pvera", tmp_path / "a"))
    continued = finish(words("pvera", tmp_path / "a"))
    assert continued[1].attempts[-1].from_step == 5
    assert_equal(continued, finish(words("pvera", tmp_path / "b")))


@pytest.mark.slow  # 26 s each
@pytest.mark.parametrize("kind", TUNER_OPTIONS)
def test_killed_and_resumed_run_equals_an_uninterrupted_run(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", SELF_SIGNALLING, "5", str(int(signal.SIGKILL)), *words(kind, tmp_path / "a")]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    continued = finish(words(kind, tmp_path / "a"))
    assert len(continued[1].attempts) == 2 and continued[1].attempts[-1].from_step == 3
    assert_equal(continued, finish(words(kind, tmp_path / "b")))


def test_record_holds_peft_version_parameters_and_start_difference(tmp_path: Path) -> None:
    folder, record = finish(words("fourierft", tmp_path))
    assert record.provenance is not None and record.parameters is not None
    assert record.provenance.packages["peft"] == importlib.metadata.version("peft")
    assert record.parameters.adapter == record.parameters.trainable == 35 * 1000, "a thousand frequencies per layer"
    assert record.facts["start_difference"] > 1, "fourierft does not start at the base model"
    saved = load_file(folder / "adapter" / "adapter.safetensors")
    assert sum(name.endswith("indices.default") for name in saved) == 35, "the indices of each layer's frequencies"
    other = finish([*COMMAND, "method=lora", f"output_root={tmp_path}"])[1]
    assert other.facts["start_difference"] == 0
    assert other.provenance is not None and "peft" not in other.provenance.packages


def test_exported_adapter_and_merged_weights_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import sdsbench

    run, _ = finish([*words("vera", tmp_path / "runs"), "train.lr=0.1"])
    assert main(["export", str(run), str(tmp_path / "peft")]) == 0
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["peft_type"] == "VERA"
    assert main(["export", str(run), str(tmp_path / "merged"), "--form", "merged"]) == 0
    micro = Path(sdsbench.__file__).parent / "synthetic" / "micro"
    base = AutoModelForCausalLM.from_pretrained(micro).eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        untrained, plain = base(input_ids=ids).logits, merged(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "peft").eval()(input_ids=ids).logits
    assert torch.allclose(adapted, plain, atol=1e-4)
    assert not torch.allclose(adapted, untrained, atol=1e-2), "the adapter changes the logits"


def test_full_fine_tuning_exports_merged_weights_and_refuses_an_adapter(tmp_path: Path) -> None:
    run, _ = finish([*COMMAND, "method=full_ft", "train.save=all", f"output_root={tmp_path / 'runs'}"])
    assert main(["export", str(run), str(tmp_path / "merged"), "--form", "merged"]) == 0
    trained = load_file(run / "adapter" / "adapter.safetensors")
    written = load_file(tmp_path / "merged" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(written[name], trained[f"other.{name}"])
    assert main(["export", str(run), str(tmp_path / "peft"), "--form", "peft"]) == 2
    assert not read_record(run / "record.json").failure
