"""`sdsbench export`: every method on every model family, opened by peft and transformers with the run's outputs."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from sdsbench.__main__ import main
from sdsbench.core.run_folder import read_record
from sdsbench.runs.execute import execute
from sdsbench.runs.export import recorded_config, trained_model
from sdsbench.sweeps import plan as plans
from tests.methods.tiny import METHODS
from tests.models.folders import model_folder
from tests.sweeps.tools import put_record, tiny_plan
from tests.tools import QUIET

FAST = ["data.source=embedded", "data.train_limit=16", "train.max_steps=3", "eval.limit=2", "eval.untrained=false",
        "threads=1", "train.batch_size=4", "model=local"]  # fmt: skip
"""Three steps, since the first has learning rate 0 and AltLoRA moves its second factor only after the first."""
KINDS: dict[str, tuple[list[str], Any]] = {
    "qwen2": (["task=gsm8k", "task.max_new_tokens=2"], AutoModelForCausalLM),
    "bert": (["task=glue/rte", "model.family=encoder"], AutoModelForSequenceClassification),
    "roberta": (["task=glue/mnli", "model.family=encoder"], AutoModelForSequenceClassification),
    "modernbert": (["task=glue/mnli", "model.family=encoder"], AutoModelForSequenceClassification),
    "vit": (["task=vision/cifar10", "model.family=vision"], AutoModelForImageClassification),
    "gpt2": (["task=gsm8k", "task.max_new_tokens=2"], AutoModelForCausalLM),
}


def train_run(folder: Path, root: Path, kind: str, method: str, *more: str) -> Path:
    """Train on a local model folder; returns the folder of the finished run."""
    options = [] if method in ("full_ft", "peft") else ["method.rank=4"]
    if method == "sds_lora":
        options.append("method.warmup_steps=1")
    place = [f"model.location={folder}", f"output_root={root}"]
    words = [*FAST, *KINDS[kind][0], f"method={method}", *options, "train.save=all", "train.lr=0.01", *place]
    assert main([*words, *more]) == 0
    (run,) = root.iterdir()
    return run


def model_inputs(kind: str) -> dict[str, torch.Tensor]:
    if kind == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    return {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10]])}


@torch.no_grad()
def logits(model: Any, kind: str) -> torch.Tensor:
    return model.eval()(**{name: value.to(model.device) for name, value in model_inputs(kind).items()}).logits.cpu()


def logits_of_run(run: Path, model: Path, kind: str) -> torch.Tensor:
    config = recorded_config(read_record(run / "record.json"), run, str(model))
    return logits(trained_model(config, run)[0].model, kind)


def open_export(folder: Path, model: Path, kind: str, labels: int) -> Any:
    """The model in an exported folder, opened as a user would: an adapter on the base model that it names."""
    head = {} if KINDS[kind][1] is AutoModelForCausalLM else {"num_labels": labels, "ignore_mismatched_sizes": True}
    if not (folder / "adapter_config.json").exists():
        return KINDS[kind][1].from_pretrained(folder)
    facts = json.loads((folder / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == str(model)
    base = KINDS[kind][1].from_pretrained(facts["base_model_name_or_path"], **head)
    return PeftModel.from_pretrained(base, folder)


def assert_exports_reproduce_run(
    kind: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    """Train, export (also merged) and compare logits with the run's; returns the text that `export` printed."""
    model = model_folder(tmp_path / "model", kind)
    run = train_run(model, tmp_path / "runs", kind, method, *words)
    expected = logits_of_run(run, model, kind)
    untrained = logits(KINDS[kind][1].from_pretrained(model), kind)
    assert untrained.shape != expected.shape or not torch.allclose(untrained, expected, atol=1e-4)
    capsys.readouterr()
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert main(["export", str(run), str(tmp_path / "merged"), "--form", "merged"]) == 0
    for folder in (tmp_path / "out", tmp_path / "merged"):
        found = logits(open_export(folder, model, kind, expected.shape[-1]), kind)
        assert torch.allclose(found, expected, atol=2e-4), (folder.name, float((found - expected).abs().max()))
    return printed


ONE_METHOD_PER_KIND = [(kind, METHODS[(3 * i + 1) % len(METHODS)]) for i, kind in enumerate(KINDS)]


@pytest.mark.parametrize(
    ("kind", "method"),
    [*ONE_METHOD_PER_KIND, ("roberta", "sds_lora"), ("vit", "full_ft"), ("gpt2", "full_ft"), ("gpt2", "sds_lora")],
)
def test_exports_reproduce_the_run(kind: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_exports_reproduce_run(kind, method, tmp_path, capsys)


def test_peft_tuners_without_conv1d_are_exported_as_plain_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "a plain model folder" in assert_exports_reproduce_run("gpt2", "peft", tmp_path, capsys, "method.type=hra")
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["export", str(run), str(tmp_path / "refused"), "--form", "peft"]) == 2
    assert "Conv1D" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "method"), ONE_METHOD_PER_KIND)
def test_exports_reproduce_runs_of_cuda(
    kind: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train in fp32 on CUDA and open the exports on a CPU."""
    assert_exports_reproduce_run(kind, method, tmp_path, capsys, "device=cuda", "dtype=float32")


@pytest.mark.slow  # 90 cases of 1.5 s
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_exports_of_every_method_and_kind_reproduce_the_run(
    kind: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_exports_reproduce_run(kind, method, tmp_path, capsys)


def test_printed_commands_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = assert_exports_reproduce_run("qwen2", "sds_lora", tmp_path, capsys)
    assert "a peft adapter of rank 8 (2r: " in printed
    command = " ".join(printed.replace("\\\n", "").split())  # a backslash continues a shell's line
    statement = ast.unparse(
        ast.parse(printed[printed.index("model = ") : printed.index("    serve  ")])
    )  # raises where the text is no Python
    loaded = f"LM.from_pretrained('{tmp_path / 'model'}'), '{tmp_path / 'out'}')"
    assert statement.startswith("model = peft.PeftModel.from_pretrained(Auto") and statement.endswith(loaded)
    assert f"vllm serve {tmp_path / 'model'} --enable-lora --max-lora-rank 8 --lora-modules sds_lora=" in command
    assert "drift_mean" not in printed and " % of the update is distorted by rounding merged weights" in printed
    (run,) = (tmp_path / "runs").iterdir()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    assert main(["export", str(run), "shown here", "--base", "me/base"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    command = shown[shown.index("vllm serve") : shown.index("where vLLM")].replace("\\\n", " ")
    assert shlex.split(command)[-2:] == ["--lora-modules", "sds_lora=shown here"]
    assert main(["export", str(run), str(tmp_path / "named"), "--base", "me/base"]) == 0
    assert json.loads((tmp_path / "named" / "adapter_config.json").read_text())["base_model_name_or_path"] == "me/base"


def test_export_accepts_only_the_base_that_was_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A moved model is given by --model and any other is refused. Records hold no path of the model."""
    model = model_folder(tmp_path / "model", "qwen2")
    run = train_run(model, tmp_path / "runs", "qwen2", "lora")
    assert str(tmp_path) not in (run / "record.json").read_text() + (run / "config.yaml").read_text()
    moved = Path(shutil.move(model, tmp_path / "moved"))
    capsys.readouterr()
    assert main(["export", str(run), str(tmp_path / "a")]) == 3
    assert "--model FOLDER" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "a"), "--model", str(moved)]) == 0
    other = model_folder(tmp_path / "other", "phi3")
    shutil.copytree(moved, tmp_path / "changed")
    (tmp_path / "changed" / "generation_config.json").write_text("{}")
    for wrong, code in ((tmp_path / "changed", 2), (other, 2), (tmp_path / "nowhere", 2)):
        assert main(["export", str(run), str(tmp_path / "b"), "--model", str(wrong)]) == code
    assert not (tmp_path / "b").exists()


def test_export_needs_no_data(tmp_path: Path) -> None:
    """The local rows that the run was trained on are deleted before the export."""
    import pyarrow
    import pyarrow.parquet

    rows = [{"question": f"{i} + 1?", "answer": f"It is. #### {i + 1}"} for i in range(300)]
    for split in ("train", "test"):
        (tmp_path / "data" / "gsm8k").mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data" / "gsm8k" / f"{split}.parquet")
    words = [word for word in FAST if not word.startswith(("data.source", "model="))]
    place = ["data.source=local", f"data.root={tmp_path / 'data'}", f"output_root={tmp_path / 'runs'}"]
    assert main([*words, "model=micro", "task=gsm8k", "task.max_new_tokens=2", "method=lora", *place]) == 0
    shutil.rmtree(tmp_path / "data")
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["export", str(run), str(tmp_path / "out")]) == 0


def test_export_of_full_fine_tuning_without_saved_weights_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in FAST if not word.startswith("model=")]
    task = ["task=gsm8k", "task.max_new_tokens=2", "model=micro", "method=full_ft", f"output_root={tmp_path / 'runs'}"]
    assert main([*words, *task]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert "train.save=all" in capsys.readouterr().err


def test_export_of_a_plan_and_of_its_best_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1", "train.save=adapter")
    for identity in plan.manifest.runs:
        execute(plan.configuration(identity, {}), QUIET)
    assert main(["export", str(plan.folder), str(tmp_path / "all")]) == 0
    names = set(plans.read(plan.folder).manifest.runs)
    assert {path.name for path in (tmp_path / "all").iterdir()} == names
    capsys.readouterr()
    assert main(["export", str(plan.folder), str(tmp_path / "best"), "--best"]) == 0
    printed = capsys.readouterr().out
    assert "is the best of 2 finished runs by gsm8k" in printed
    assert (tmp_path / "best" / "adapter_config.json").is_file()
    (run, *_) = names
    assert main(["export", run, str(tmp_path / "none"), "--best"]) == 2


def test_export_of_a_plan_names_damaged_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    names = list(plan.manifest.runs)
    for name in names:
        put_record(plan, tmp_path / "runs", name)
    paths = [tmp_path / "runs" / name / "record.json" for name in names]
    paths[0].write_text("{}")
    assert main(["export", str(plan.folder), str(tmp_path / "out")]) == 2, "the other run saved nothing"
    assert f"left out: {paths[0]}" in capsys.readouterr().err
    paths[1].write_text("{}")
    assert main(["export", str(plan.folder), str(tmp_path / "out")]) == 3
    assert all(str(path) in capsys.readouterr().err for path in paths[:1])
