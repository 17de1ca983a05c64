"""Registering a new method, agreement of YAML files with configuration classes, and refusal of wrong values."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from sdsbench.methods.attach import attach, merged
from sdsbench.methods.base import LowRankConfig, Method, build, lookup, register
from sdsbench.methods.export import export_peft
from sdsbench.runs.configuration.typed import parse_section
from tests.methods.tiny import METHODS, Session, logits, tiny_batch, tiny_model

CONF = Path(__file__).parents[2] / "conf" / "method"
MODULES = Path(sys.modules[Method.__module__].__file__).parent


class ScaledConfig(LowRankConfig):
    name: str = "toy_average"
    strength: float = 2.0


def test_new_method_is_one_class_that_trains_merges_and_exports(tmp_path) -> None:
    """W = W0 + strength * B A, where A starts with non-negative entries."""

    @register("toy_average", ScaledConfig)
    class ToyMethod(Method):
        def scale(self) -> float:
            return self.config.strength

        def create(self, layer, generator) -> None:
            m, n = layer.shape
            layer.add_parameter("down", torch.rand(self.config.rank, n, generator=generator))
            layer.add_parameter("up", torch.zeros(m, self.config.rank))

        def branches(self, layer):
            return [(layer.up, layer.down)]

    from peft import PeftModel

    model, batch = tiny_model("decoder"), tiny_batch("decoder")
    method = build(lookup("toy_average")[1](name="toy_average", rank=3))
    session = Session(model, method, attach(model, method, 0), batch, {})
    losses = session.train(6)
    assert losses[-1] < losses[0]
    expected = logits(model, batch)
    torch.testing.assert_close(logits(merged(model, torch.float32), batch), expected, rtol=1e-4, atol=1e-4)
    export_peft(tmp_path, session.layers, method)
    peft_logits = logits(PeftModel.from_pretrained(tiny_model("decoder"), tmp_path), batch)
    torch.testing.assert_close(peft_logits, expected, rtol=1e-4, atol=1e-4)


def test_unknown_method_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        lookup("no_such_method")


def test_every_registered_method_has_a_yaml_file() -> None:
    registering = {path.stem for path in MODULES.glob("*.py") if "\n@register(" in path.read_text()}
    assert {path.stem for path in CONF.glob("*.yaml")} == registering


@pytest.mark.parametrize("name", METHODS)
def test_yaml_file_has_every_key_with_a_comment(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    keys = lookup(name)[1].model_fields
    assert sorted(yaml.safe_load(text)) == sorted(keys)
    assert f"python -m sdsbench method={name}" in text.splitlines()[0]
    assert all("  # " in line for line in text.splitlines()[2:]), "a comment states the values that a key accepts"


@pytest.mark.parametrize("name", METHODS)
def test_yaml_values_without_interpolation_equal_the_defaults(name: str) -> None:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    fixed = {key: value for key, value in values.items() if not str(value).startswith("${")}
    config = lookup(name)[1](**fixed)
    assert list(config.problems()) == []
    assert config == lookup(name)[1](name=name)


BAD = [
    ("lora", {"rank": 0}),
    ("lora", {"alpha": 0.0}),
    ("lora", {"dropout": 1.0}),
    ("lora", {"targets": []}),
    ("full_ft", {"scope": "half"}),
    ("sds_lora", {"warmup_steps": 0}),
    ("sds_lora", {"variant": "none"}),
    ("sds_lora", {"refresh": "sometimes"}),
    ("sds_lora", {"phases": 0}),
    ("sds_lora", {"guard": -1.0}),
    ("pissa", {"svd": "slow"}),
    ("pissa", {"svd_iterations": -1}),
    ("pissa", {"svd_oversampling": -1}),
    ("lora_pro", {"mode": "half"}),
    ("lora_pro", {"scaling": "none"}),
    ("lora_pro", {"damping": 0.0}),
    ("lora_pro", {"betas": [0.9]}),
    ("lora_pro", {"betas": [0.9, 1.0]}),
    ("lora_pro", {"epsilon": 0.0}),
    ("lora_pro", {"moment_dtype": "int8"}),
    ("lora_xs", {"singular_values": "left"}),
    ("lora_xs", {"r_std": -1.0}),
    ("lora_sb", {"eta": "guess"}),
    ("lora_sb", {"start": "zero"}),
    ("lora_sb", {"sample_fraction": 0.0}),
    ("lora_sb", {"samples": 0}),
    ("lora_sb", {"noise_std": -1.0}),
    ("lora_sb", {"svd": "slow"}),
    ("lora_sb", {"factor_dtype": "int8"}),
    ("lora_sb", {"r_dtype": "int8"}),
    ("lora_plus", {"ratio": 0.0}),
    ("preconditioned_lora", {"damping": 0.0}),
    ("lora_ga", {"gamma": 0.0}),
    ("lora_ga", {"samples": 0}),
    ("lora_ga", {"svd_iterations": -1}),
    ("altlora", {"steps_per_turn": 0}),
    ("altlora", {"damping": 0.0}),
    ("altlora", {"betas": [0.9]}),
    ("altlora", {"betas": [1.0, 0.9]}),
    ("altlora", {"epsilon": 0.0}),
]


@pytest.mark.parametrize(("name", "keys"), BAD, ids=lambda value: str(value))
def test_wrong_value_is_reported_with_key_and_accepted_values(name: str, keys: dict) -> None:
    _, problems = parse_section(lookup(name)[1], {"name": name, **keys}, "method")
    assert [problem.key for problem in problems] == [f"method.{key}" for key in keys]
    assert problems[0].value == next(iter(keys.values())) and problems[0].accepted


def test_all_problems_are_reported_at_once() -> None:
    wrong = {"name": "sds_lora", "rank": 0, "alpha": -1.0, "phases": 0, "refresh": "x", "pases": 3}
    _, problems = parse_section(lookup("sds_lora")[1], wrong, "method")
    assert {problem.key for problem in problems} == {f"method.{key}" for key in wrong.keys() - {"name"}}
    assert "Did you mean 'method.phases'?" in str(problems[-1])


def test_configuration_refuses_wrong_values_and_assignment() -> None:
    config = lookup("lora")[1]
    with pytest.raises(ValidationError, match="rank"):
        config(rank=0)
    with pytest.raises(ValidationError, match="frozen"):
        config().rank = 4  # type: ignore[misc]


def test_configurations_are_imported_without_torch() -> None:
    import subprocess

    load = f"from sdsbench.methods.base import lookup; [lookup(name) for name in {METHODS}]"
    code = f"import sys; {load}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONF.parents[1])
