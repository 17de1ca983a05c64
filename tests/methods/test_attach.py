"""Target layers, initial values, merging, scopes of full fine-tuning, PiSSA's start and groups of layers."""

from __future__ import annotations

import copy

import pytest
import torch

from sdsbench.core.errors import ConfigError
from sdsbench.methods.attach import adapted_layers, attach, group_by_shape, merged, target_layers
from tests.methods.tiny import logits, make_method, tiny_model, tiny_session


def test_all_linear_excludes_heads_and_poolers() -> None:
    for family, heads in (
        ("decoder", {"lm_head"}),
        ("encoder", {"classifier", "bert.pooler.dense"}),
        ("vision", {"classifier"}),
    ):
        model = tiny_model(family)
        linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        assert linear - set(target_layers(model, ["all-linear"])) == heads


def test_targets_match_whole_parts_at_the_end_of_names() -> None:
    names = list(target_layers(tiny_model("encoder"), ["query", "output.dense"]))
    assert len(names) == 6 and "bert.encoder.layer.0.attention.output.dense" in names
    assert len(target_layers(tiny_model("encoder"), ["attention.output.dense"])) == 2
    with pytest.raises(ConfigError, match="uery") as caught:
        target_layers(tiny_model("encoder"), ["uery", "value", "nothing"])
    assert [problem.value for problem in caught.value.problems] == ["uery", "nothing"]


def test_rank_above_the_smaller_dimension_of_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.rank=33.*at most 16"):
        attach(tiny_model("decoder"), make_method("lora", rank=33, targets=["k_proj"]), 0)


def test_initial_values_depend_on_seed_and_name_only() -> None:
    all_linear = tiny_session("lora").layers
    two_targets = tiny_session("lora", targets=["up_proj", "q_proj"]).layers
    other_seed = tiny_session("lora", seed=1).layers
    for name, layer in two_targets.items():
        assert torch.equal(layer.A, all_linear[name].A)
        assert not torch.equal(layer.A, other_seed[name].A)
    assert len({layer.A[0, 0].item() for layer in all_linear.values()}) == len(all_linear)


def test_initial_values_are_kaiming_uniform() -> None:
    layer = tiny_session("lora", rank=16, targets=["down_proj"]).layers["model.layers.0.mlp.down_proj"]
    bound = 48**-0.5
    assert 0.95 * bound < layer.A.abs().max() <= bound and layer.B.abs().max() == 0


@pytest.mark.parametrize("name", ["lora", "pissa", "dora"])
def test_merging_does_not_change_the_model(name: str) -> None:
    session = tiny_session(name)
    session.train(2)
    before = logits(session.model, session.batch)
    state = copy.deepcopy(session.model.state_dict())
    merged_model = merged(session.model)
    assert not adapted_layers(merged_model) and adapted_layers(session.model) == session.layers
    assert torch.equal(logits(session.model, session.batch), before)
    assert all(torch.equal(tensor, session.model.state_dict()[key]) for key, tensor in state.items())


def test_merged_model_keeps_tied_weights_and_dtype() -> None:
    model = tiny_model("decoder", torch.bfloat16)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    attach(model, make_method("lora"), 0)
    merged_model = merged(model)
    assert merged_model.lm_head.weight is merged_model.model.embed_tokens.weight
    assert {parameter.dtype for parameter in merged_model.parameters()} == {torch.bfloat16}


def test_training_does_not_change_base_weights() -> None:
    session = tiny_session("lora")
    session.train(2)
    base = dict(tiny_model("decoder").named_parameters())
    assert all(torch.equal(layer.weight, base[f"{name}.weight"]) for name, layer in session.layers.items())


def test_full_fine_tuning_trains_the_layers_of_its_scope() -> None:
    everything = tiny_session("full_ft")
    assert len(everything.trainable()) == len(list(everything.model.parameters()))
    targets = tiny_session("full_ft", scope="targets", targets=["q_proj", "v_proj"], family="decoder")
    assert {name.split(".")[-2] for name in targets.trainable()} == {"q_proj", "v_proj"}
    assert {name.split(".")[-1] for name in tiny_session("full_ft", "encoder", scope="targets").trainable()} == {
        "weight"
    }


@pytest.mark.parametrize("svd", ["fast", "exact"])
def test_pissa_starts_at_the_leading_singular_part(svd: str) -> None:
    session = tiny_session("pissa", alpha=8.0, svd=svd, svd_iterations=12, svd_oversampling=8)
    for name, layer in session.layers.items():
        weight = tiny_model("decoder").get_submodule(name).weight.detach()
        u, s, vh = torch.linalg.svd(weight)
        product = session.method.scale() * layer.B @ layer.A
        torch.testing.assert_close(product.detach(), (u[:, :4] * s[:4]) @ vh[:4], rtol=1e-2, atol=2e-2 * float(s[0]))
        torch.testing.assert_close(layer.A.norm(dim=1), layer.B.norm(dim=0), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(layer.weight + product, weight, rtol=0, atol=1e-5)


def test_pissa_records_the_rounding_of_its_residual() -> None:
    exact, rounded = tiny_session("pissa"), tiny_session("pissa", dtype=torch.bfloat16)
    assert exact.facts["residual_rounding_max"] == 0
    assert 1e-4 < rounded.facts["residual_rounding_mean"] <= rounded.facts["residual_rounding_max"] < 1e-2


def test_layers_are_grouped_by_shape() -> None:
    session = tiny_session("lora")
    groups = group_by_shape(session.layers)
    assert sorted(len(group) for group in groups) == [2, 4, 4, 4]
    assert all(len({layer.shape for layer in group}) == 1 for group in groups)


def test_small_batches_on_the_cpu_do_not_change_losses(monkeypatch) -> None:
    from sdsbench.methods import linear_algebra

    session = tiny_session("sds_lora", refresh="every")
    monkeypatch.setattr(linear_algebra, "CPU_BATCH", 3 * 64 * 4)
    assert sorted(len(group) for group in group_by_shape(session.layers)) == [1, 2, 2, 2, 3, 4]
    unlimited = tiny_session("sds_lora", refresh="every")
    limited_losses = session.train(5)
    monkeypatch.undo()
    assert limited_losses == unlimited.train(5), "the batching of layers changes no number"


def test_dora_row_norm_equals_the_dense_norm() -> None:
    session = tiny_session("dora", alpha=8.0)
    session.train(5)
    for layer in session.layers.values():
        dense = (layer.weight + session.method.scale() * layer.B @ layer.A).norm(dim=1)
        torch.testing.assert_close(session.method.row_norm(layer), dense, rtol=1e-5, atol=1e-6)
        assert (dense / layer.weight.norm(dim=1) - 1).abs().max() > 1e-2
