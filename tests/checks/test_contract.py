"""Every registered method holds the contract of `sdsbench check`, which finds methods that break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdsbench.__main__ import main
from sdsbench.checks import method as contract
from sdsbench.checks.finding import Finding
from sdsbench.checks.task import check_task
from sdsbench.methods.lora import LoRA
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.runs.configuration.identity import with_values
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source


def config_of(method: str) -> RunConfig:
    composed = compose_run(["model=micro", "data.source=embedded", f"method={method}", "task.max_new_tokens=4"])
    return resolve_source(with_values(composed, contract.SMALL))[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", options("method"))
def test_every_method_holds_the_whole_contract(name: str, tmp_path: Path) -> None:
    found = list(contract.check_method(config_of(name), tmp_path))
    assert [str(finding) for finding in found if finding.holds is False] == []


def finding_for_lora_with(
    monkeypatch: pytest.MonkeyPatch, point: Callable[[RunConfig], Finding], **replaced: Any
) -> Finding:
    """The finding of one point of the contract for LoRA with some of its methods replaced."""
    for name, function in replaced.items():
        monkeypatch.setattr(LoRA, name, function)
    return point(config_of("lora"))


def test_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def branches(self: LoRA, layer: Any) -> Any:
        return [(layer.B, layer.A.detach() + 0.5 * (layer.A - layer.A.detach()))]

    assert finding_for_lora_with(monkeypatch, contract.gradients, branches=branches).holds is False


def test_draw_from_the_global_generator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def after_step(self: LoRA, *_: Any) -> dict[str, float]:
        torch.rand(1)
        return {}

    assert finding_for_lora_with(monkeypatch, contract.randomness, after_step=after_step).holds is False


def test_state_missing_from_checkpoints_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def before_step(self: LoRA, layers: Any, step: int, lr: float) -> None:
        self.seen = getattr(self, "seen", 0) + 1  # type: ignore[attr-defined]
        for layer in layers.values():
            layer.B.grad.mul_(self.seen)  # type: ignore[attr-defined]

    monkeypatch.setattr(LoRA, "before_step", before_step)
    config = with_values(config_of("lora"), {"train.clip_norm": None, "train.optimizer": "sgd", "train.lr": 0.1})
    assert contract.resume(config, tmp_path).holds is False


def test_method_that_changes_base_weights_is_not_trained_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(self: LoRA, layers: Any, context: Any) -> dict[str, float]:
        for layer in layers.values():
            layer.weight.data = layer.weight.data * 1.01
        return {}

    finding = finding_for_lora_with(monkeypatch, contract.group, prepare=prepare)
    assert finding.holds is None and "base weights" in finding.text


@pytest.mark.parametrize("task", ["gsm8k", "math", "commonsense/boolq"])
def test_task_holds_its_contract(task: str) -> None:
    config = compose_run(["model=micro", "data.source=embedded", "method=lora", f"task={task}"])
    found = list(check_task(config))
    assert [str(finding) for finding in found if finding.holds is False] == []


def test_check_command_prints_each_point_and_fails_if_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contract, "resume", lambda *_: Finding("resume", False, "made to fail"))
    monkeypatch.setattr(contract, "gradients", lambda *_: Finding("gradients", True, ""))
    monkeypatch.setattr(contract, "export", lambda *_: Finding("export", None, ""))
    assert main(["check", "method=lora"]) == 4
    printed = capsys.readouterr()
    assert "FAILS  resume" in printed.out and "holds  randomness" in printed.out
    assert "1 point(s) of the contract fail" in printed.err
