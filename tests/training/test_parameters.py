"""Optimizer groups: which tensors share a group, and each group's learning rate and weight decay."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from sdsbench.methods.attach import attach
from sdsbench.models.head import unfreeze_head
from sdsbench.training import parameters
from sdsbench.training.optimizer import FlatOptimizer, Group
from sdsbench.training.parameters import count, optimizer_groups, optimizer_of
from sdsbench.training.training_config import OptimizerName, TrainConfig
from tests.methods.replay import AUTHORS
from tests.methods.tiny import make_method, tiny_model


def groups_of(method: str, train: TrainConfig, **keys: object) -> tuple[nn.Module, list[Group]]:
    """An encoder with a trained head, and the optimizer groups of its trained parameters."""
    model, made = tiny_model("encoder"), make_method(method, **keys)
    attach(model, made, 0)
    return model, optimizer_groups(model, made, unfreeze_head(model), train)


def group_of_each(model: nn.Module, groups: list[Group]) -> dict[str, Group]:
    """Name of each trained parameter -> its group; asserts that it is in exactly one."""
    found = {}
    for name, parameter in model.named_parameters():
        holders = [group for group in groups if any(parameter is member for member in group.parameters)]
        assert len(holders) == parameter.requires_grad, f"{name} is in {len(holders)} groups"
        if holders:
            found[name] = holders[0]
    return found


def test_weight_decay_applies_to_all_parameters_but_vectors() -> None:
    """With zero gradients, AdamW only decays: matrices shrink by lr x weight decay, vectors are unchanged."""
    train = TrainConfig(lr=0.1, weight_decay=0.5)
    model, groups = groups_of("full_ft", train)
    trained = group_of_each(model, groups)
    assert {group.name for group in groups} == {"weights", "weights, vectors", "head", "head, vectors"}
    assert trained["classifier.bias"].name == "head, vectors"
    with torch.no_grad():
        model.get_parameter("classifier.bias").fill_(0.3)  # a new head's bias is 0, which would hide a decay
    before = {name: model.get_parameter(name).detach().clone() for name in trained}
    optimizer = FlatOptimizer(groups, train)
    optimizer.zero_grad()
    optimizer.step(1.0)
    for name, old in before.items():
        kept = 1 - 0.1 * 0.5 if old.ndim > 1 else 1.0
        torch.testing.assert_close(model.get_parameter(name).detach(), kept * old, msg=name)


def test_head_has_its_own_learning_rate() -> None:
    for method in ("lora", "full_ft"):
        for head_lr, expected in ((0.7, 0.7), (None, 0.1)):
            model, groups = groups_of(method, TrainConfig(lr=0.1, head_lr=head_lr))
            rates = {name: group.lr for name, group in group_of_each(model, groups).items()}
            in_head = {name for name in rates if name.startswith("classifier")}
            assert len(in_head) == 2
            assert {name for name, rate in rates.items() if rate == expected} >= in_head
            assert {rate for name, rate in rates.items() if name not in in_head} == {0.1}


def test_head_has_weight_decay_and_the_configured_rule() -> None:
    for rule in ("adamw", "momentum", "sgd"):
        model, groups = groups_of("lora", TrainConfig(lr=0.1, weight_decay=0.5, optimizer=rule))
        found = group_of_each(model, groups)
        assert {group.rule for group in found.values()} == {rule}
        assert {group.weight_decay for name, group in found.items() if name != "classifier.bias"} == {0.5}


@pytest.mark.parametrize("optimizer", ("adamw", "momentum", "sgd"))
def test_method_with_its_own_direction_gets_plain_steps_without_decay(optimizer: OptimizerName) -> None:
    """LoRA-Pro's full mode is documented as a plain step without weight decay. The head is an ordinary group."""
    train = TrainConfig(lr=0.1, weight_decay=0.5, optimizer=optimizer)
    model, groups = groups_of("lora_pro", train, mode="full")
    found = group_of_each(model, groups)
    adapter = {name: group for name, group in found.items() if not name.startswith("classifier")}
    assert {(group.rule, group.weight_decay) for group in adapter.values()} == {("sgd", 0.0)}
    assert (found["classifier.weight"].rule, found["classifier.weight"].weight_decay) == (optimizer, 0.5)


def test_lora_plus_groups_equal_the_authors() -> None:
    """B and vectors of the head have ratio times the learning rate; vectors have no decay (tests/methods/authors/)."""
    cases = json.loads((AUTHORS / "lora_plus.json").read_text())["cases"]
    not_offered = {"biases", "embedding", "embedding rate", "dora"}  # cases that train the base or DoRA's magnitudes
    offered = [case for case in cases if case["case"] not in not_offered]
    assert [case["case"] for case in offered] == ["linear layers", "no decay", "head"]
    for case in offered:
        model = nn.ModuleDict({"block": nn.ModuleDict({"up": nn.Linear(20, 24), "down": nn.Linear(24, 20)})})
        method = make_method("lora_plus", ratio=case["ratio"])
        attach(model, method, 0)
        if case["case"] == "head":
            linear, norm = nn.Linear(20, 20), nn.LayerNorm(20)
            model["classifier"] = nn.ModuleDict({"dense": linear, "norm": norm, "out_proj": nn.Linear(20, 2)})
        head = list(model["classifier"].parameters()) if "classifier" in model else []
        train = TrainConfig(lr=case["lr"], weight_decay=case["weight_decay"])
        found = group_of_each(model, optimizer_groups(model, method, head, train))
        expected = {_own_name(row["tensor"]): (row["lr"], row["weight_decay"]) for row in case["tensors"]}
        assert {name: (pytest.approx(group.lr), group.weight_decay) for name, group in found.items()} == expected


def test_decay_vectors_puts_vectors_among_the_matrices() -> None:
    _, groups = groups_of("full_ft", TrainConfig(weight_decay=0.5, decay_vectors=True))
    assert {(group.name, group.weight_decay) for group in groups} == {("weights", 0.5), ("head", 0.5)}


def test_without_weight_decay_vectors_need_no_group_of_their_own() -> None:
    assert {group.name for group in groups_of("full_ft", TrainConfig())[1]} == {"weights", "head"}


def test_the_head_keeps_fp32_where_a_method_trains_in_16_bits() -> None:
    model, made = tiny_model("encoder"), make_method("lora_sb", r_dtype="bfloat16")
    attach(model, made, 0)
    found = group_of_each(model, optimizer_groups(model, made, unfreeze_head(model), TrainConfig()))
    dtypes = {name.startswith("classifier"): group.dtype for name, group in found.items()}
    assert dtypes == {True: None, False: torch.bfloat16}


def test_the_key_chooses_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """adamw8bit also gets the seed of its stochastic rounding; torchao is not needed to see that."""
    monkeypatch.setattr(parameters, "InBackwardAdamW", lambda *given: given)
    _, groups = groups_of("full_ft", TrainConfig())
    eight_bit = TrainConfig(optimizer="adamw8bit")
    assert optimizer_of(groups, eight_bit, 7) == (groups, eight_bit, 7)
    assert isinstance(optimizer_of(groups, TrainConfig(), 7), FlatOptimizer)


def _own_name(tensor: str) -> str:
    """The package's name of a tensor that PEFT names: block.up.lora_A.default.weight -> block.up.A"""
    return tensor.replace(".modules_to_save.default", "").replace("lora_", "").replace(".default.weight", "")


def test_counts_of_trained_parameters() -> None:
    """Adapters count rank x (m + n) per adapted layer; the head is counted separately."""
    model = tiny_model("encoder")
    before, made = sum(p.numel() for p in model.parameters()), make_method("lora")
    layers = attach(model, made, 0)
    head = unfreeze_head(model)
    counted = count(model, head, before)
    factors = sum(4 * sum(layer.shape) for layer in layers.values())
    in_head = sum(p.numel() for p in head)
    assert (counted.adapter, counted.trainable, counted.total) == (factors, factors + in_head, before)
