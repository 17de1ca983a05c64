"""A finished run is reused, and an interrupted one resumed, only if code, weights and data have not changed."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sdsbench
from sdsbench.core.errors import Interrupted, Refused
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.origin import code_parts, package_versions, uncommitted
from sdsbench.runs.reuse import earlier_results
from sdsbench.runs.run_context import RunContext, open_run
from sdsbench.training.loop import StepReport, Training
from sdsbench.training.state import TrainState

ROOT = Path(sdsbench.__file__).parent.parent
FAST = [
    "data.source=embedded", "train.max_steps=6", "train.batch_size=2", "threads=1", "eval.limit=2", "device=cpu",
    "eval.untrained=false", "task.max_new_tokens=2", "data.train_limit=16", "task=gsm8k",
]  # fmt: skip
PLUGIN = """
from sdsbench.methods.base import register
from sdsbench.methods.lora import LoRA, LoRAConfig

class Config(LoRAConfig):
    name: str = "{name}"

@register("{name}", Config)
class Mine(LoRA):
    def scale(self) -> float:
        return self.config.alpha / self.config.rank**0.25
"""


def run_and_log(*words: str) -> tuple[Record, str]:
    logged: list[str] = []
    return execute(compose_run([*FAST, *words]), RunContext(log=logged.append)), "\n".join(logged)


def write_plugin(folder: Path, name: str) -> list[str]:
    """Write a plugin with a method below `folder`, and return the overrides of a run that uses it."""
    (folder / f"plugin_{name}.py").write_text(PLUGIN.format(name=name))
    (folder / "method").mkdir()
    (folder / "method" / f"{name}.yaml").write_text(
        f"name: {name}\ntargets: ${{protocol.targets}}\nrank: 4\nalpha: 8.0\ndropout: 0.0\n"
    )
    return [f"plugins=[plugin_{name}]", f"method={name}"]


def replace_in_file(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def interrupt_run(words: list[str], config_dirs: tuple[str, ...] = ()) -> None:
    """Leave a run unfinished after its third step, by a signal in this process."""
    step = Training.step

    def step_and_signal(self: Training, state: TrainState) -> StepReport:
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, state)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Training, "step", step_and_signal)
        execute(compose_run(words, config_dirs), RunContext(log=lambda _: None))


def test_changed_code_of_a_method_is_refused_and_changed_comments_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    words = [*FAST, "model=micro", f"output_root={tmp_path / 'runs'}", *write_plugin(tmp_path, "reuse_a")]
    config = compose_run(words, [str(tmp_path)])
    logged: list[str] = []
    context = RunContext(log=logged.append)
    first = execute(config, context)
    source = tmp_path / "plugin_reuse_a.py"
    assert first.provenance is not None and {"core", "method", "plugin:plugin_reuse_a"} <= first.provenance.code.keys()
    assert "plugin_reuse_a" in (first.provenance.uncommitted or [])
    replace_in_file(source, "class Mine(LoRA):", "# the fourth root\nclass Mine(LoRA):\n    '''Another scale.'''")
    assert execute(config, context) == first and "found finished run" in logged[-2]
    replace_in_file(source, "rank**0.25", "rank**0.5")
    with pytest.raises(Refused, match=r"(?s)finished run .* other code .*code of method: then .*force=true") as caught:
        execute(config, context)
    assert caught.value.exit_code == 2
    folder = tmp_path / "runs" / first.run_id
    assert read_record(folder / "record.json") == first, "the record is unchanged"
    again = execute(compose_run([*words, "force=true"], [str(tmp_path)]), context)
    assert again.run_id == first.run_id and again.provenance is not None
    assert again.provenance.code["method"] != first.provenance.code["method"]
    aside = list(folder.glob("record.replaced-*.json"))
    assert len(aside) == 1 and read_record(aside[0]) == first


def test_interrupted_run_resumes_only_with_unchanged_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    words = [*FAST, "model=micro", f"output_root={tmp_path / 'runs'}", *write_plugin(tmp_path, "reuse_b")]
    interrupt_run(words, (str(tmp_path),))
    source = tmp_path / "plugin_reuse_b.py"
    replace_in_file(source, "rank**0.25", "rank**0.5")
    with pytest.raises(Refused, match=r"(?s)checkpoint-3 of run .*code of method"):
        execute(compose_run(words, [str(tmp_path)]), RunContext(log=lambda _: None))
    path = next((tmp_path / "runs").glob("*/record.json"))
    assert read_record(path).status == "preempted", "a refusal does not count as a failure of the run"
    replace_in_file(source, "rank**0.5", "rank**0.25  # as it was")
    record = execute(compose_run(words, [str(tmp_path)]), RunContext(log=lambda _: None))
    assert (record.status, record.attempts[-1].from_step) == ("done", 3)


@pytest.mark.parametrize("interrupt", [False, True])
def test_changed_weights_in_the_same_folder_are_refused(tmp_path: Path, interrupt: bool) -> None:
    model = tmp_path / "model"
    shutil.copytree(ROOT / "sdsbench" / "synthetic" / "micro", model)
    words = ["model=local", f"model.location={model}", "method=lora", f"output_root={tmp_path / 'runs'}"]
    if interrupt:
        interrupt_run([*FAST, *words])
    else:
        run_and_log(*words)
    tensors = load_file(model / "model.safetensors")
    save_file({name: t + 0.01 * torch.ones_like(t) for name, t in tensors.items()}, model / "model.safetensors")
    with pytest.raises(Refused, match=r"(?s)other base weights .*base weights: then [0-9a-f]{12}, now [0-9a-f]{12}"):
        run_and_log(*words)
    assert run_and_log(*words, "force=true")[0].status == "done"


@pytest.mark.parametrize("lost", ["", "record", "checkpoint"])
def test_tensors_of_an_earlier_training_are_not_those_of_the_new_one(tmp_path: Path, lost: str) -> None:
    """A run that is trained anew (by force, or since its files were lost) keeps them under another name only."""
    force = [] if lost else ["force=true"]
    config = compose_run([*FAST, "model=micro", "method=lora", f"output_root={tmp_path}", *force])
    with open_run(config, RunContext(log=lambda _: None)) as run:
        run.keeper.record.status = "preempted" if lost == "checkpoint" else "done"
        run.keeper.write()
        for name in ("adapter", "probes"):
            (run.folder / name).mkdir()
            (run.folder / name / "kept").write_text(name)
        if lost == "record":
            (run.folder / "record.json").write_text("{}")
    with open_run(config, RunContext(log=lambda _: None)) as run:
        assert earlier_results(run) == (None, None)
        for name in ("adapter", "probes"):
            (aside,) = run.folder.glob(f"{name}*")
            assert aside.name.startswith(f"{name}.replaced-") and (aside / "kept").read_text() == name
        if not lost:
            (record,) = run.folder.glob("record.replaced-*.json")
            assert record.stem.partition("-")[2] == aside.name.partition("-")[2], "all have one name"
        assert earlier_results(run) == (None, None), "nothing is left to set aside"


def test_reused_run_with_other_cost_keys_logs_the_difference(tmp_path: Path) -> None:
    words = ["model=micro", "method=lora", "method.dropout=0", f"output_root={tmp_path}"]
    first, _ = run_and_log(*words)
    again, logged = run_and_log(*words, "train.activation_checkpointing=true")
    assert again == first
    assert "train.activation_checkpointing=false (now true)" in logged


INTERRUPT = """
import os, signal, sys
from sdsbench.__main__ import main
from sdsbench.training.loop import Training

step = Training.step


def step_and_signal(self, state):
    if state.step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, state)


Training.step = step_and_signal
sys.exit(main(sys.argv[1:]))
"""


class Checkout:
    """A copy of the package whose files can be edited as a developer does, and commands that use the copy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.package = folder, folder / "sdsbench"
        shutil.copytree(ROOT / "sdsbench", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "conf", folder / "conf")
        (folder / "interrupt.py").write_text(INTERRUPT)

    def sdsbench(self, *words: str, program: tuple[str, ...] = ("-m", "sdsbench")) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *program, *words]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)

    def lora(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return self.sdsbench(*FAST, "model=micro", "method=lora", "output_root=runs", *words, **how)

    def table(self) -> str:
        done = self.sdsbench("table", "grid", "--runs", "runs", "--output", "tables")
        assert done.returncode == 0, done.stderr
        return next((self.folder / "tables").glob("*.csv")).read_text()


def test_another_methods_file_changes_nothing_and_the_core_changes_all(tmp_path: Path) -> None:
    """Between an interruption and the resumption, between two seeds, and before the same command again."""
    checkout = Checkout(tmp_path)
    package = checkout.package
    assert checkout.lora(program=("interrupt.py",)).returncode == 130
    (package / "methods" / "another.py").write_text("VALUE = 1\n")
    replace_in_file(package / "methods" / "dora.py", "    title =", "    # a comment\n    constant = 2\n    title =")
    assert checkout.lora().returncode == 0
    (path,) = tmp_path.glob("runs/*/record.json")
    assert [attempt.from_step for attempt in read_record(path).attempts] == [0, 3]
    replace_in_file(package / "runs" / "banner.py", "def banner(", "CONSTANT = 2\n\n\ndef banner(")
    replace_in_file(package / "training" / "loop.py", "def check_finite(", "# a comment\ndef check_finite(")
    assert checkout.lora("seed=1").returncode == 0
    table = checkout.table()
    assert [(row["row"], row["n"]) for row in csv.DictReader(table.splitlines())] == [("lora_r8", "2")], "one cell"
    found = checkout.lora()
    assert found.returncode == 0 and "found finished run" in found.stdout
    replace_in_file(package / "training" / "loop.py", "def check_finite(", "CONSTANT = 2\n\n\ndef check_finite(")
    refused = checkout.lora()
    assert refused.returncode == 2 and "code of core: then" in refused.stderr
    assert "code of method" not in refused.stderr

    # Tables read records alone: no file of conf/ changes one.
    for path in (tmp_path / "conf").rglob("*.yaml"):
        path.write_text("")
    assert checkout.table() == table


def test_uncommitted_modules_are_those_that_no_commit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    names = ("committed_module", "edited_module", "untracked_module", "ignored_module")
    for name in names:
        (tmp_path / f"{name}.py").write_text("VALUE = 1\n")
    (tmp_path / ".gitignore").write_text("ignored_module.py\n")

    def git(*words: str) -> None:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("add", ".gitignore", "committed_module.py", "edited_module.py")
    git("commit", "-m", "two modules")
    replace_in_file(tmp_path / "edited_module.py", "1", "2")
    config = compose_run([*FAST, "model=micro", "method=lora", f"plugins=[{','.join(names)}]"])
    changed = uncommitted(config)
    assert changed is not None
    assert set(changed) & set(names) == {"edited_module", "untracked_module", "ignored_module"}


def test_code_and_packages_of_a_run_include_those_of_the_process_that_compares_answers() -> None:
    task = code_parts(compose_run(["model=micro", "task=math", "method=lora", "data.source=embedded"]))["task"]
    needed = {path.stem for path in (ROOT / "sdsbench" / "tasks" / "symbolic").glob("*.py")} - {"__init__"}
    assert {f"sdsbench.tasks.symbolic.{name}" for name in needed} <= task.keys() and len(needed) == 3
    assert {"math-verify", "sympy", "latex2sympy2_extended", "pillow"} <= package_versions().keys()
