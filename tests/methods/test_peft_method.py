"""Tuners of the peft library as methods: refusals, normal form of options, training, resuming and export."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from sdsbench.core.errors import ConfigError, Refused
from sdsbench.methods.attach import attach
from sdsbench.methods.base import Method, MethodConfig, build, lookup, register
from sdsbench.methods.export import export_peft
from sdsbench.methods.named_tensors import FrozenAdditions, named_tensors, put_tensors, version
from sdsbench.methods.peft import peft_types
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import named, run_id
from sdsbench.runs.families import TextFamily
from sdsbench.runs.prepare import ready_to_train
from sdsbench.sweeps.group import group_key
from sdsbench.training.causal import CausalObjective, EncodedText
from sdsbench.training.dropout import Dropout
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.order import DataOrder
from sdsbench.training.parameters import optimizer_groups
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig
from tests.methods.tiny import logits, tiny_batch, tiny_model

pytest.importorskip("peft")  # before `peft_types`, which asks the library

STEPS = 6
SAMPLE: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"lora_dropout": 0.2}),
    ("vera", {"r": 4, "vera_dropout": 0.2}),  # has frozen random matrices that all layers share
    ("pvera", {"r": 4}),  # draws random numbers in its forward pass, not in nn.Dropout
    ("loha", {"r": 2, "rank_dropout": 0.5}),
    ("boft", {"boft_dropout": 0.2}),
    ("oft", {"oft_block_size": 8}),
    ("ia3", {}),
    ("miss", {"r": 2}),
    ("fourierft", {"n_frequency": 20}),  # has frozen indices that are no buffers
    ("randlora", {"r": 4}),
    ("lily", {"r": 4}),  # shares one factor between layers
]
KINDS = [kind for kind, _ in SAMPLE]


def peft_method(kind: str, options: dict[str, Any] | None = None) -> Method:
    config = lookup("peft")[1](name="peft", type=kind, options=options)  # type: ignore[call-arg]
    assert list(config.problems()) == []
    return build(config)


def random_examples() -> list[EncodedText]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 12, 10).tolist()
    return [EncodedText(tuple(generator.integers(0, 40, length).tolist()), length // 2) for length in lengths]


def training_of_tuner(kind: str, options: dict[str, Any], seed: int = 0) -> tuple[Training, TrainState]:
    """A tiny decoder with the tuner, ready to train."""
    return training_of_method(peft_method(kind, options), seed)


def training_of_method(method: Method, seed: int, model: Any = None) -> tuple[Training, TrainState]:
    """A decoder (tiny, if none is given) with a method that wraps no layers, ready to train."""
    model = tiny_model("decoder") if model is None else model
    base = named_tensors(model)
    layers = attach(model, method, seed)
    config, rows = TrainConfig(lr=1e-2, batch_size=4, max_steps=STEPS), random_examples()
    training = Training(
        model, CausalObjective(None, None, 0), rows, DataOrder(len(rows), 4, 0), config, torch.device("cpu"),
        Dropout(model, 0),
    )  # fmt: skip
    optimizer = FlatOptimizer(optimizer_groups(model, method, [], config), config)
    return training, TrainState(optimizer, method, layers, frozen=FrozenAdditions(model, base))


def train(training: Training, state: TrainState, until: int = STEPS) -> list[float]:
    """Train up to step `until`; returns the losses."""
    training.model.train()
    losses = []
    while state.step < until:
        losses.append(training.step(state).loss)
    training.model.eval()
    return losses


@pytest.mark.parametrize(("kind", "options"), SAMPLE, ids=KINDS)
def test_resume_from_the_checkpoint_alone_equals_uninterrupted_training(kind: str, options: dict[str, Any]) -> None:
    """The second half starts from a model with other initial values, so all that matters is in the checkpoint."""
    uninterrupted = train(*training_of_tuner(kind, options))
    training, state = training_of_tuner(kind, options)
    first = train(training, state, 3)
    tensors = {name: tensor.clone() for name, tensor in state.tensors().items()}
    facts = copy.deepcopy(state.facts())
    training, state = training_of_tuner(kind, options, seed=1)
    torch.manual_seed(11)  # the state of the global generator must not matter
    state.load(tensors, facts)
    assert first + train(training, state) == uninterrupted
    assert len(set(uninterrupted)) == STEPS


TYPES = [kind for kind, reason in peft_types().items() if reason is None]
ELSEWHERE = {"trainable_tokens": {"target_modules": ["embed_tokens"], "token_indices": [1, 2, 3]}}
"""Options of types that train nothing at their defaults."""


def square_model() -> Any:
    """A decoder whose layers are all 256 x 256: every type's default block divides them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=40
            )
        )  # fmt: skip


def square_training(kind: str, seed: int) -> tuple[Training, TrainState]:
    """With peft's defaults and method.targets, or, for a type of other layers, with peft's own choice of layers."""
    try:
        return training_of_method(peft_method(kind, ELSEWHERE.get(kind)), seed, square_model())
    except ConfigError as error:
        assert "names linear layers" in error.problems[0].advice
        return training_of_method(peft_method(kind, {"target_modules": None}), seed, square_model())


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_trains_and_resumes_bitwise(kind: str) -> None:
    whole = square_training(kind, 0)
    losses = train(*whole, until=2)
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    training, state = square_training(kind, 0)
    train(training, state, until=1)
    saved = {name: tensor.clone() for name, tensor in state.tensors().items()}, copy.deepcopy(state.facts())
    other, rest = square_training(kind, 1)
    rest.load(*saved)
    assert train(other, rest, until=2) == losses[1:]
    tensors = rest.tensors()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in whole[1].tensors().items())


@pytest.mark.parametrize(("kind", "options"), SAMPLE, ids=KINDS)
def test_exported_and_folded_models_equal_the_trained_one(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    from peft import PeftModel

    training, state = training_of_tuner(kind, options)
    train(training, state)
    batch = tiny_batch("decoder")
    expected = logits(training.model, batch)
    assert (expected - logits(tiny_model("decoder").eval(), batch)).abs().max() > 1e-2, "training changed the outputs"
    export_peft(tmp_path, {}, state.method, "tiny", "CAUSAL_LM")
    peft_model = PeftModel.from_pretrained(tiny_model("decoder"), tmp_path).eval()
    torch.testing.assert_close(logits(peft_model, batch), expected, rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == kind.upper()
    if kind == "lily":
        with pytest.raises(Refused, match=r"lily cannot become plain weights.*--form peft"):
            state.method.fold(training.model)
        return
    folded = state.method.fold(training.model)
    torch.testing.assert_close(logits(folded, batch), expected, rtol=1e-4, atol=1e-4)
    assert {type(module) for module in folded.modules()} == {type(module) for module in tiny_model("decoder").modules()}


def test_tuner_that_rewrites_the_base_is_exported_as_plain_weights_only(tmp_path: Path) -> None:
    """peft would draw another decomposition of the base when it loads the folder, so outputs would differ."""
    training, state = training_of_tuner("lora", {"r": 4, "init_lora_weights": "pissa_niter_4"})
    train(training, state)
    expected = logits(training.model, tiny_batch("decoder"))
    with pytest.raises(Refused, match=r"rewrites weights of the base.*--form merged"):
        export_peft(tmp_path, {}, state.method, "tiny", "CAUSAL_LM")
    folded = state.method.fold(training.model)
    torch.testing.assert_close(logits(folded, tiny_batch("decoder")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "options"), [case for case in SAMPLE if case[0] not in ("pvera", "lily")], ids=str)
def test_loss_of_a_packed_batch_equals_the_sum_of_single_rows(kind: str, options: dict[str, Any]) -> None:
    training, state = training_of_tuner(kind, options)
    train(training, state, 2)
    rows, objective = random_examples()[:3], training.objective
    with torch.no_grad():
        packed = objective.loss(training.model, rows, training.device)
        alone = sum(objective.loss(training.model, [row], training.device) for row in rows)
    torch.testing.assert_close(packed, alone, rtol=1e-6, atol=1e-6)


def test_lora_of_peft_has_the_losses_of_method_lora() -> None:
    """With the same seed, data, order and optimizer; initial factors are copied, since peft draws others."""
    run = ["model=micro", "data.source=embedded", "data.train_limit=32", "train.max_steps=8", "train.batch_size=4",
           "threads=1", "protocol.dropout=0", "train.lr=5e-3"]  # fmt: skip
    training, state = ready_to_train(compose_run([*run, "method=lora", "method.rank=4", "method.alpha=8"]))
    peft_model, peft_state = ready_to_train(
        compose_run([*run, "method=peft", "method.type=lora", "method.options={r: 4, lora_alpha: 8}"])
    )
    places = named_tensors(peft_model.model)
    with torch.no_grad():
        for name, layer in state.layers.items():
            places[f"{name}.lora_A.default.weight"].copy_(layer.A)
    ours, peft = (train(a, b, 8) for a, b in ((training, state), (peft_model, peft_state)))
    assert ours[-1] < ours[0] - 0.1
    np.testing.assert_allclose(peft, ours, rtol=0, atol=1e-6)


def tensor_bytes(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in named_tensors(model).items()}


@pytest.mark.parametrize("kind", ["lora", "loha", "vera"])
def test_initial_values_depend_on_the_seed_alone(kind: str) -> None:
    found = []
    for outside, seed in ((1, 0), (2, 0), (2, 5)):
        torch.manual_seed(outside)
        before, model = torch.random.get_rng_state(), tiny_model("decoder")
        attach(model, peft_method(kind), seed)
        assert torch.equal(before, torch.random.get_rng_state()), "the global generator is restored"
        found.append(tensor_bytes(model))
    assert found[0] == found[1]
    assert (found[1] == found[2]) == (kind == "vera"), "vera has a seed of its own, options.projection_prng_key"


def peft_overrides(*more: str) -> list[str]:
    return ["model=micro", "data.source=embedded", "method=peft", *more]


def test_equal_options_in_other_spelling_have_the_same_run_id() -> None:
    same = ["null", "{}", "{r: 8}", "{r: 8.0}", "{lora_alpha: 8, r: 8}"]
    assert len({run_id(compose_run(peft_overrides(f"method.options={options}"))) for options in same}) == 1
    spelt = ["{target_modules: [v_proj, q_proj]}", "{target_modules: [q_proj, v_proj]}"]
    assert len({run_id(compose_run(peft_overrides(f"method.options={options}"))) for options in spelt}) == 1
    different = ["{}", "{r: 16}", "{lora_dropout: 0.1}", "{use_dora: true}", spelt[0]]
    configs = [compose_run(peft_overrides(f"method.options={options}")) for options in different]
    assert len({run_id(config) for config in configs}) == len(different)
    assert run_id(compose_run(peft_overrides("method.type=LoRA"))) == run_id(configs[0])
    read_back = lookup("peft")[1](**named(configs[1])["method"])  # type: ignore[arg-type]
    assert read_back == configs[1].method, "the stored form of a plan or record gives the same configuration"


REFUSED = [
    ("prompt_tuning", "PromptEmbedding adds something beside"),
    ("prefix_tuning", "PrefixEncoder adds something beside"),
    ("adaption_prompt", "adds something beside"),
    ("xlora", "no layers of its own"),
    ("poly", "changes the forward pass of the whole model"),
    ("adalora", "changes the forward pass of the whole model"),
    ("ver", "peft has no such type"),
]


@pytest.mark.parametrize(("kind", "reason"), REFUSED, ids=[kind for kind, _ in REFUSED])
def test_unsupported_types_are_refused_with_the_reason(kind: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(peft_overrides(f"method.type={kind}"))
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("method.type", kind)
    assert reason.lower() in problem.advice.lower() and "vera" in problem.accepted


def test_wrong_options_are_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(peft_overrides("method.type=vera", "method.options={rr: 4, d_initial: 0.2, task_type: CAUSAL_LM}"))
    assert sorted(problem.key for problem in caught.value.problems) == [
        "method.options.rr", "method.options.task_type",
    ]  # fmt: skip
    assert "d_initial" in caught.value.problems[0].accepted
    with pytest.raises(ConfigError, match="peft says: ValueError"):
        compose_run(peft_overrides("method.type=ia3", "method.options={target_modules: [a], feedforward_modules: [b]}"))
    with pytest.raises(ConfigError, match=r"peft says: ValueError: .*positive"):
        attach(tiny_model("decoder"), peft_method("lora", {"r": -1}), 0)


def test_type_for_other_layers_asks_for_target_modules() -> None:
    with pytest.raises(ConfigError, match=r"ln_tuning for LlamaRMSNorm"):
        attach(tiny_model("decoder"), peft_method("ln_tuning"), 0)
    model = tiny_model("decoder")
    attach(model, peft_method("ln_tuning", {"target_modules": None}), 0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 5 and all("norm" in name for name in trained)


@pytest.mark.parametrize(
    ("kind", "options", "needed"),
    [
        ("adamss", {"use_asa": True}, "update_and_allocate"),
        ("lora", {"r": 4, "kasa_config": {}}, "_get_kasa_loss"),
        ("lora", {"r": 4, "monteclora_config": {}}, "_get_monteclora_loss"),
    ],
)
def test_options_that_need_extra_calls_in_training_are_refused(kind: str, options: dict[str, Any], needed: str) -> None:
    with pytest.raises(ConfigError, match=needed):
        attach(tiny_model("decoder"), peft_method(kind, options), 0)


@pytest.mark.parametrize(
    ("name", "keys"), [("lora", {"targets": ["lm_head"]}), ("peft", {"options": {"target_modules": ["lm_head"]}})]
)
def test_adapter_on_the_output_layer_is_refused(name: str, keys: dict[str, Any]) -> None:
    """The loss uses that layer's weight directly, so the adapter would count as trained but never change."""
    model = tiny_model("decoder")
    attach(model, build(lookup(name)[1](name=name, **keys)), 0)
    with pytest.raises(ConfigError, match=r"lm_head.*would never train"):
        TextFamily(None, None, 0).unfreeze_head(model)


def test_peft_runs_are_not_grouped_and_refuse_probes_and_8_bit_adamw() -> None:
    assert group_key(compose_run(peft_overrides())) is None
    assert group_key(compose_run(["model=micro", "data.source=embedded", "method=lora"])) is not None
    with pytest.raises(ConfigError, match=r"probe\.every=2: accepted: null with method=peft"):
        compose_run(peft_overrides("probe.every=2"))
    with pytest.raises(ConfigError, match=r"adamw8bit"):
        compose_run(peft_overrides("train.optimizer=adamw8bit"))


class ShiftedLinear(nn.Module):
    """A plugin's layer, which adds a trained number times a frozen random vector that is held in a plain attribute."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.step = linear, nn.Parameter(torch.zeros(()))
        self.kept = {"direction": [torch.randn(linear.out_features)]}

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.step * self.kept["direction"][0]


@register("toy_shift", MethodConfig)
class ShiftMethod(Method):
    def wraps_layers(self) -> bool:
        return False

    def unfreeze(self, model: nn.Module, targets: Any, seed: int) -> None:
        for name, linear in targets.items():
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, ShiftedLinear(linear))


def test_a_tensor_s_version_changes_with_its_values() -> None:
    weight = nn.Parameter(torch.ones(3))
    before = version(weight)
    assert version(weight) == before
    with torch.no_grad():
        weight.mul_(2)
    changed = version(weight)
    assert changed != before
    weight.data = weight.data.clone()
    assert version(weight) != changed


def test_frozen_tensors_in_plain_attributes_of_a_plugin_are_found() -> None:
    model = tiny_model("decoder")
    base = named_tensors(model)
    attach(model, build(MethodConfig(name="toy_shift", targets=["q_proj"])), 0)
    frozen = FrozenAdditions(model, base)
    assert list(frozen.tensors()) == [f"model.layers.{n}.self_attn.q_proj.kept.direction.0" for n in (0, 1)]
    saved = {name: tensor + 1 for name, tensor in frozen.tensors().items()}
    put_tensors(model, saved)
    assert all(torch.equal(frozen.tensors()[name], tensor) for name, tensor in saved.items())


def test_plugin_resumes_from_the_checkpoint_alone() -> None:
    """Its frozen directions depend on the run's seed; after a start with another seed only the checkpoint has them."""
    method = build(MethodConfig(name="toy_shift", targets=["q_proj"]))
    uninterrupted = train(*training_of_method(method, 0))
    training, state = training_of_method(method, 0)
    first = train(training, state, 3)
    saved = {name: tensor.clone() for name, tensor in state.tensors().items()}, copy.deepcopy(state.facts())
    other, rest = training_of_method(method, 1)
    rest.load(*saved)
    assert first + train(other, rest) == uninterrupted
    assert train(*training_of_method(method, 1)) != uninterrupted, "other directions give other losses"
