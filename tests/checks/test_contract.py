"""The contract of `sdsbench check`: every registered method and task holds it, and each point finds its own break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdsbench.__main__ import main
from sdsbench.checks import method as contract
from sdsbench.checks import task as task_contract
from sdsbench.checks.finding import Finding
from sdsbench.checks.task import check_task
from sdsbench.core.errors import Refused
from sdsbench.methods.lora import LoRA
from sdsbench.runs import memory
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks
from sdsbench.tasks.classification import Aggregate
from tests.models.folders import model_folder
from tests.tools import reads_own_files

TASKS = [
    name
    for name in options("task")
    if not reads_own_files(name) and not issubclass(tasks.lookup(name)[0], Aggregate)  # its members are tasks, too
]
MODELS = {"text": ("qwen2", "decoder"), "classification": ("bert", "encoder"), "vision": ("vit", "vision")}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """Overrides for a random model, two layers of 32 units, that fits a kind of task."""
    made: dict[str, Path] = {}

    def overrides_for(kind: str) -> list[str]:
        architecture, family = MODELS[kind]
        if kind not in made:
            made[kind] = model_folder(tmp_path_factory.mktemp(kind), architecture)
        return ["model=local", f"model.family={family}", f"model.location={made[kind]}", "data.source=embedded"]

    return overrides_for


@pytest.fixture
def config_of(models: Callable[[str], list[str]]) -> Callable[..., RunConfig]:
    return lambda method, *words: contract.small(compose_run([*models("text"), f"method={method}", *words]))


@pytest.mark.parametrize("name", options("method"))
def test_every_method_holds_the_whole_contract(name: str, config_of: Callable[..., RunConfig], tmp_path: Path) -> None:
    found = list(contract.check_method(config_of(name), tmp_path))
    assert [str(finding) for finding in found if finding.holds is False] == []
    assert len(found) == 9


@pytest.mark.parametrize("task", TASKS)
def test_every_task_holds_its_contract(task: str, models: Callable[[str], list[str]]) -> None:
    kind = tasks.lookup(task)[0].kind
    short = ["task.max_new_tokens=8"] if kind == "text" else []
    found = list(check_task(compose_run([*models(kind), "method=lora", f"task={task}", *short])))
    assert [str(finding) for finding in found if finding.holds is False] == []


# ---- breaks

forward = LoRA.forward


def peek(self: LoRA, layer: Any, x_tn: Tensor) -> Tensor:
    """The last layer adds the next token's output. The last token of a text carries no loss, so packing is harmless."""
    y_tm = forward(self, layer, x_tn)
    return y_tm + 0.1 * y_tm.roll(-1, 0) if layer.name.endswith("layers.1.mlp.down_proj") else y_tm


def mix(self: LoRA, layer: Any, x_tn: Tensor) -> Tensor:
    """Adds the mean over all earlier tokens, those of other texts in the row included."""
    y_tm = forward(self, layer, x_tn)
    count_t1 = torch.arange(1, len(y_tm) + 1, device=y_tm.device)[:, None]
    return y_tm + 0.1 * y_tm.cumsum(0) / count_t1


def own_weights(self: LoRA, layers: Any, _: Any) -> dict[str, float]:
    """Equal weights at another address: no other run shares them, so the method trains alone. A joint pass computes the
    product itself and would not see what `forward` adds."""
    for layer in layers.values():
        layer.weight.data = layer.weight.data.clone()
    return {}


def without_export(self: LoRA, layer: Any) -> dict[str, Tensor]:
    raise Refused("peft has no such layer")


def half_a_gradient(self: LoRA, layer: Any) -> Any:
    return [(layer.B, layer.A.detach() + 0.5 * (layer.A - layer.A.detach()))]


def draw(self: LoRA, *_: Any) -> dict[str, float]:
    torch.rand(1)
    return {}


def scale_by_a_count_that_no_checkpoint_holds(self: Any, layers: Any, step: int, lr: float) -> None:
    self.seen = getattr(self, "seen", 0) + 1
    for layer in layers.values():
        layer.B.grad.mul_(self.seen)


def scale_the_input(self: LoRA, layer: Any, x_tn: Tensor) -> Tensor:
    """A joint pass computes products with the layer's own input and ignores this one."""
    return forward(self, layer, 1.1 * x_tn)


def export_twice_the_update(self: LoRA, layer: Any) -> dict[str, Tensor]:
    return {"lora_A.weight": 2 * layer.A.detach(), "lora_B.weight": layer.B.detach()}


def keep_what_is_not_counted(self: Any, layers: Any, step: int, lr: float) -> None:
    if not any(layer.weight.is_meta for layer in layers.values()):
        self.kept = torch.zeros(10**6)


BREAKS: dict[str, dict[str, Callable[..., Any]]] = {
    "past": {"forward": peek, "prepare": own_weights, "peft_tensors": without_export},
    "packed": {"forward": mix, "prepare": own_weights, "peft_tensors": without_export},
    "gradients": {"branches": half_a_gradient},
    "randomness": {"after_step": draw},
    "resume": {"before_step": scale_by_a_count_that_no_checkpoint_holds},
    "group": {"forward": scale_the_input, "peft_tensors": without_export},
    "export": {"peft_tensors": export_twice_the_update},
    "memory": {"before_step": keep_what_is_not_counted},
}
"""LoRA's verbs replaced, by the only point of the contract that then fails (`start` is a fact that cannot fail)."""


@pytest.mark.parametrize("point", BREAKS)
def test_a_break_fails_its_own_point_alone(
    point: str, config_of: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path / "cache"))  # counts are kept under LoRA's own code
    monkeypatch.setattr(memory, "_COUNTED", {})
    for name, verb in BREAKS[point].items():
        monkeypatch.setattr(LoRA, name, verb)
    found = contract.check_method(config_of("lora"), tmp_path / "runs")
    assert [finding.point for finding in found if finding.holds is False] == [point]


def test_another_start_is_reported(config_of: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("lora")
    assert contract.start(config).text == "starts at the base weights"

    def prepare(self: LoRA, layers: Any, context: Any) -> dict[str, float]:
        with torch.no_grad():
            for layer in layers.values():
                layer.B.fill_(0.1)
        return {}

    monkeypatch.setattr(LoRA, "prepare", prepare)
    finding = contract.start(config)
    assert finding.holds is None and "from the base model's losses" in finding.text


def test_writing_into_the_base_means_training_alone(
    config_of: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(self: LoRA, layers: Any, context: Any) -> dict[str, float]:
        for layer in layers.values():
            layer.weight.data = layer.weight.data * 1.01
        return {}

    monkeypatch.setattr(LoRA, "prepare", prepare)
    finding = contract.group(config_of("lora"))
    assert finding.holds is None and "base weights" in finding.text


def test_lily_of_peft_is_not_causal(config_of: Callable[..., RunConfig]) -> None:
    """Its router averages over all tokens."""
    pytest.importorskip("peft")
    assert contract.past(config_of("peft", "method.type=lily")).holds is False
    assert contract.past(config_of("peft", "method.type=lora")).holds is True


# ---- the command


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces both contracts by one point each; lists which the command asks for."""
    names: list[str] = []

    def replace(module: Any, verb: str, name: str) -> None:
        def check(config: RunConfig, *_: Any) -> Iterator[Finding]:
            names.append(f"{name} {getattr(config, name).name}")
            yield Finding("first", True, "as demanded")

        monkeypatch.setattr(module, verb, check)

    replace(contract, "check_method", "method")
    replace(task_contract, "check_task", "task")
    return names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=lora"], ["method lora"]),
        (["task=gsm8k"], ["task gsm8k"]),
        (["++task=gsm8k"], ["task gsm8k"]),
        (["task=math", "method=dora"], ["method dora", "task math"]),
        ([], ["method sds_lora"]),
    ],
    ids=str,
)
def test_the_command_checks_what_its_words_name(
    words: list[str], expected: list[str], called: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *words]) == 0
    assert called == expected
    assert capsys.readouterr().out.splitlines() == [
        line for name in expected for line in (f"{name} on model micro", "holds  first        as demanded")
    ]


@pytest.mark.parametrize("word", ["method=lora", "task=gsm8k"])
def test_the_command_fails_where_a_point_does(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, verb = (contract, "check_method") if word == "method=lora" else (task_contract, "check_task")
    found = [Finding("one", True, "good"), Finding("two", False, "made to fail"), Finding("three", None, "a fact")]
    monkeypatch.setattr(module, verb, lambda *_: iter(found))
    assert main(["check", word]) == 4
    said = capsys.readouterr()
    assert "holds  one" in said.out and "FAILS  two          made to fail" in said.out and "-      three" in said.out
    assert "1 point(s) of the contract fail" in said.err


def test_the_command_has_no_option_for_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--task", "task=gsm8k"]) == 2
    assert "--task" in capsys.readouterr().err


def test_export_is_not_checked_without_the_peft_library(
    config_of: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after `make setup`: the README's check of a method must not fail for a package that it does not need."""
    config = config_of("lora")
    monkeypatch.setattr(contract.importlib.util, "find_spec", lambda name: None)
    finding = contract.export(config, tmp_path)
    assert finding.holds is None and "pip install 'sdsbench[peft]'" in finding.text
