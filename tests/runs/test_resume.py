"""A run that is killed and started again has bitwise the losses, weights and scores of an uninterrupted run."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sdsbench.core import samples
from sdsbench.core import step_log as metrics
from sdsbench.core.errors import Interrupted, Refused
from sdsbench.core.run_folder import read_record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.training import checkpoint
from sdsbench.training.loop import StepReport, Training
from sdsbench.training.signals import StopRequest
from sdsbench.training.state import TrainState
from tests.methods.tiny import METHODS
from tests.tools import QUIET

COMMAND = [
    "model=micro", "data.source=embedded", "train.max_steps=14", "train.checkpoint_every=3", "threads=1",
    "eval.limit=4", "eval.untrained=false", "task.max_new_tokens=8", "data.train_limit=64", "train.batch_size=4",
]  # fmt: skip


def finish(root: Path, *extra: str) -> Path:
    """Run the command to its end in this process, and return the run's folder."""
    execute(compose_run([*COMMAND, f"output_root={root}", *extra]), QUIET)
    return next(path.parent for path in root.glob("*/record.json"))


SELF_SIGNALLING = """
import os, sys
from sdsbench.__main__ import main
from sdsbench.training.loop import Training
step, number, *words = sys.argv[1:]
usual = Training.step
def step_or_signal(self, state):
    if state.step == int(step):
        os.kill(os.getpid(), int(number))
    return usual(self, state)
Training.step = step_or_signal
sys.exit(main(words))
"""


def stop_after(root: Path, step: int, number: int, *extra: str) -> int:
    """Run the command in a process that sends itself a signal after `step` steps, and return its exit code.

    The step is the same on any machine; a signal sent from here could arrive after more steps on a busy one.
    """
    words = [str(step), str(number), *COMMAND, f"output_root={root}", *extra]
    command = [sys.executable, "-c", SELF_SIGNALLING, *words]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True).returncode


def interrupt(root: Path, *extra: str) -> None:
    """Leave a run unfinished after its fourth step, by a signal in this process."""
    step = Training.step

    def step_and_signal(self: Training, state: TrainState) -> StepReport:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, state)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Training, "step", step_and_signal)
        finish(root, *extra)


def outcome(folder: Path) -> tuple:
    """Everything that must be equal in two runs: status, scores, step log without times, tensors, answers, losses."""
    record = read_record(folder / "record.json")
    lines = metrics.read(folder / "metrics.jsonl")
    steps = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    tensors = load_file(next((folder / "adapter").glob("*.safetensors")))
    answers = samples.read(samples.path_of(folder, "gsm8k", "trained"))
    return (
        record.status, [s.model_dump() for s in record.scores], steps,
        {k: v.numpy().tobytes() for k, v in tensors.items()}, json.dumps(answers),
        record.losses.model_dump(), record.tokens.model_dump(),
    )  # fmt: skip


# SDS-LoRA is LoRA until its split, so the kill before the split tests LoRA too.
@pytest.mark.parametrize("method", [pytest.param("lora", marks=pytest.mark.slow), "sds_lora"])
def test_killed_and_resumed_run_equals_an_uninterrupted_run(tmp_path: Path, method: str) -> None:
    extra = [f"method={method}", "method.dropout=0.1"]
    whole = finish(tmp_path / "whole", *extra)
    for step in (2, 11):  # before the first checkpoint; between two checkpoints and after SDS-LoRA's split
        assert stop_after(tmp_path / "killed", step, signal.SIGKILL, *extra) == -signal.SIGKILL
    killed = finish(tmp_path / "killed", *extra)
    assert outcome(killed) == outcome(whole)
    attempts = read_record(killed / "record.json").attempts
    assert len(attempts) == 3
    assert attempts[-1].from_step > 0, "it resumed from a checkpoint"


@pytest.mark.parametrize("method", METHODS)
def test_resumed_run_of_every_method_equals_an_uninterrupted_run(tmp_path: Path, method: str) -> None:
    extra = [f"method={method}", "train.save=all"]
    interrupt(tmp_path / "a", *extra)
    assert outcome(finish(tmp_path / "a", *extra)) == outcome(finish(tmp_path / "b", *extra))


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lora", "sds_lora", "lora_pro", "full_ft"])
def test_resumed_run_on_cuda_has_the_losses_of_an_uninterrupted_run(tmp_path: Path, method: str) -> None:
    """Losses agree to 1e-3 in fp32: on CUDA, attention and the embedding sum gradients in no fixed order."""
    extra = [f"method={method}", "train.save=all", "device=cuda", "dtype=float32"]
    interrupt(tmp_path / "a", *extra)
    folders = finish(tmp_path / "a", *extra), finish(tmp_path / "b", *extra)
    lines = [metrics.read(folder / "metrics.jsonl") for folder in folders]
    losses = [[line["loss"] for line in one if line["kind"] == "train"] for one in lines]
    assert len(losses[0]) == 14 and losses[0] == pytest.approx(losses[1], rel=1e-3)
    record = read_record(folders[0] / "record.json")
    assert [attempt.from_step for attempt in record.attempts][-1] > 0, "it resumed from a checkpoint"


def test_sigterm_saves_a_checkpoint_and_records_preemption(tmp_path: Path) -> None:
    assert stop_after(tmp_path / "a", 2, signal.SIGTERM, "method=lora") == 130
    record = read_record(next(tmp_path.glob("a/*/record.json")))
    assert record.status == "preempted"
    assert record.failure is not None and "SIGTERM" in record.failure.message
    assert outcome(finish(tmp_path / "a", "method=lora")) == outcome(finish(tmp_path / "b", "method=lora"))


def test_finished_run_is_reused_and_force_keeps_the_old_record(tmp_path: Path) -> None:
    folder = finish(tmp_path, "method=lora")
    before = (folder / "record.json").read_bytes()
    logged: list[str] = []
    execute(compose_run([*COMMAND, f"output_root={tmp_path}", "method=lora"]), RunContext(log=logged.append))
    assert "nothing trained" in logged[0]
    assert (folder / "record.json").read_bytes() == before
    finish(tmp_path, "method=lora", "force=true")
    assert len(list(folder.glob("record.replaced-*.json"))) == 1, "the old record stays beside the new one"
    assert not list(folder.glob("checkpoint-*")), "a finished run has no checkpoint"


def test_checkpoint_of_other_code_is_refused(tmp_path: Path) -> None:
    interrupt(tmp_path, "method=lora")
    state = next(tmp_path.glob("*/checkpoint-*/state.json"))
    facts = json.loads(state.read_text())
    facts["origin"]["code of core"] = "0" * 64
    state.write_text(json.dumps({**facts, "checksum": checkpoint._checksum(facts)}))
    with pytest.raises(Refused, match=r"(?s)other code .*code of core: then 0{12}.*force=true"):
        finish(tmp_path, "method=lora")
    assert state.exists(), "the checkpoint is not deleted"


def test_resume_hashes_the_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(tmp_path, "method=lora")
    digest, checked = hashlib.file_digest, []

    def counted(file: Any, algorithm: str) -> Any:
        if file.name.endswith("state.safetensors") and not file.writable():  # a file open for writing is being saved
            checked.append(file.name)
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    finish(tmp_path, "method=lora")
    assert len(checked) == 1


def test_run_with_a_damaged_checkpoint_equals_a_fresh_run(tmp_path: Path) -> None:
    interrupt(tmp_path, "method=lora")
    tensors = next(tmp_path.glob("*/checkpoint-*/state.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-7])
    folder = finish(tmp_path, "method=lora")
    assert outcome(folder) == outcome(finish(tmp_path / "fresh", "method=lora"))


def test_ctrl_c_stops_generation_at_the_next_token(tmp_path: Path) -> None:
    """Within a batch that lm-eval generates, the trained state is saved, and only the evaluation is repeated."""

    class StopAtFifthCheck(StopRequest):
        checks = 0

        def raise_if_received(self, saved: str) -> None:
            self.checks += saved.startswith("evaluation")
            if self.checks == 5:
                raise Interrupted(saved)

    words = [
        "model=micro", "method=lora", "data.source=embedded", "data.train_limit=32", "train.max_steps=2",
        "eval.limit=8", "eval.untrained=false", "threads=1", "task.max_new_tokens=60", f"output_root={tmp_path}",
    ]  # fmt: skip
    stop = StopAtFifthCheck()
    with pytest.raises(Interrupted):
        execute(compose_run(words), RunContext(log=lambda _: None, stop=stop))
    (folder,) = (path.parent for path in tmp_path.glob("*/record.json"))
    assert stop.checks == 5 and read_record(folder / "record.json").status == "preempted"
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    record = execute(compose_run(words), QUIET)
    assert [attempt.from_step for attempt in record.attempts] == [0, 2]
    assert record.losses and record.losses.steps == 2 and record.scores[0].n == 8


@pytest.mark.parametrize("lost", [False, True])
def test_process_that_dies_in_the_final_evaluation_leaves_what_training_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """The resumed run only evaluates; with a record that is `lost`, the cost comes from the checkpoint."""

    class Dies(BaseException):
        """Like the end of a process, it leaves the record as it is."""

    def die(*_: Any) -> None:
        raise Dies

    words = ["method=lora", "train.max_steps=2"]
    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr("sdsbench.runs.finish.evaluate", die)
        patch.setattr("sdsbench.runs.train.peak_memory", lambda: (10**15, "rss"))
        finish(tmp_path, *words)
    (path,) = tmp_path.glob("*/record.json")
    stopped = read_record(path)
    assert stopped.status == "running" and stopped.seconds.train > 0
    assert stopped.placing["group_size"] == 1 and "micro_tokens" in stopped.placing
    if lost:
        path.unlink()
    monkeypatch.setattr("sdsbench.runs.train.peak_memory", lambda: (10**14, "rss"))
    finish(tmp_path, *words)
    record = read_record(path)
    assert (record.status, record.attempts[-1].from_step, record.seconds.train) == ("done", 2, stopped.seconds.train)
    assert record.placing == stopped.placing
    assert record.memory is not None and record.memory.peak_bytes == (10**14 if lost else 10**15)
