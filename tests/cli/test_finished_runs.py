"""Commands on a finished run (export, trace, show), and on a copy of its folder that was damaged or brings code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdsbench.__main__ import main
from sdsbench.core.errors import Refused
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.start_from import adapter_hash
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
    assert "of the updated weights are rounded back" in " ".join(capsys.readouterr().out.split())
    assert main(["export", str(run), str(tmp_path / "merged"), "--form", "merged"]) == 0
    micro = Path(sdsbench.__file__).parent / "synthetic" / "micro"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(micro), tmp_path / "peft")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(micro)
    ids = AutoTokenizer.from_pretrained(tmp_path / "merged")("Tom has 12 apples.", return_tensors="pt").input_ids
    with torch.no_grad():
        one, two, three = (model(input_ids=ids).logits for model in (adapted, merged, base))
    assert torch.allclose(one, two, atol=1e-4)
    assert not torch.allclose(one, three, atol=1e-3), "the adapter changes the outputs"


def test_commands_accept_the_beginning_of_a_run_id(
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


def test_export_refuses_a_full_folder_and_a_folder_that_is_no_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert main(["export", str(run), str(tmp_path / "full")]) == 2
    assert main(["export", str(tmp_path), str(tmp_path / "new")]) == 2
    assert "a run folder with record.json and adapter/" in capsys.readouterr().err


def copy_run(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / run.name))


def test_export_imports_no_plugin_that_a_received_run_names(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plugin's module lies beside the run, below the working folder, where `python -m` would find it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    received = copy_run(run, tmp_path / "received")
    (tmp_path / "received" / "theirs.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    record = read_record(received / "record.json")
    assert record.provenance is not None
    record.provenance.code["plugin:received.theirs"] = "0" * 64
    write_record(received, record)
    assert main(["export", str(received), str(tmp_path / "out")]) == 2
    assert "brings no code" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


ADAPTER_DAMAGE: dict[str, Callable[[Path], object]] = {
    "a FIFO for tensors": lambda folder: replace_by_fifo(folder / "adapter.safetensors"),
    "a FIFO for the description": lambda folder: replace_by_fifo(folder / "adapter.json"),
    "a link": lambda folder: replace_by_link(folder / "adapter.safetensors"),
    "deep JSON": lambda folder: (folder / "adapter.json").write_text("[" * 100_000),
    "a list": lambda folder: (folder / "adapter.json").write_text("[]"),
    "no state": lambda folder: (folder / "adapter.json").write_text(
        json.dumps({k: v for k, v in json.loads((folder / "adapter.json").read_text()).items() if k != "state"})
    ),
    "no tensors": lambda folder: (folder / "adapter.safetensors").write_bytes(b"x" * 99),
}


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("damage", ADAPTER_DAMAGE)
def test_damaged_adapter_is_refused_in_one_line(
    damage: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    received = copy_run(run, tmp_path)
    ADAPTER_DAMAGE[damage](received / "adapter")
    assert main(["export", str(received), str(tmp_path / "out")]) in (2, 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert "adapter" in line and "Traceback" not in line
    words = [*FAST, "method=sds_lora", "method.warmup_steps=2", "seed=1", f"output_root={tmp_path}"]
    # adapter_hash reads the bytes of this file before it parses anything
    if damage.startswith(("a FIFO for tensors", "a link")):
        with pytest.raises(Refused, match=r"adapter\.safetensors"):
            adapter_hash(compose_run([*words, f"start_from='{run.name}'"]))


BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 30))


@pytest.mark.parametrize(
    "text", ["[1]", "", "a: [", "x: " + "[" * 3000, BOMB, b"\xff\xfe", "9"], ids=lambda text: str(text)[:9]
)
def test_damaged_configuration_is_refused_and_a_link_not_followed(
    text: str | bytes, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_run(run, tmp_path) / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["show", str(path.parent)]) == 3
    assert str(path) in capsys.readouterr().err
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert main(["show", str(path.parent)]) == 3
    assert "a link, which is not followed" in capsys.readouterr().err
