"""LoRA, rsLoRA, DoRA, PiSSA and OLoRA against peft: outputs, gradients and 20 AdamW steps in fp32."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from sdsbench.methods.layer import AdaptedLinear
from tests.methods.tiny import FAMILIES, logits, tiny_model, tiny_session

PEFT_KEYS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}
STEPS = 20


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PEFT_KEYS)
def test_equal_to_peft_over_20_steps(name: str, family: str) -> None:
    session = tiny_session(name, family, **({"svd": "exact", "alpha": 4.0} if name == "pissa" else {"alpha": 8.0}))
    config = LoraConfig(
        r=4, lora_alpha=int(session.method.config.alpha), target_modules=list(session.layers), **PEFT_KEYS[name]
    )
    peft_model = get_peft_model(tiny_model(family), config)
    pairs = tensor_pairs(session.layers, peft_model)
    with torch.no_grad():
        for own, other in pairs.values():
            if "init_lora_weights" in PEFT_KEYS[name]:  # equal up to the signs of pairs of vectors
                sign = torch.sign((own * other).sum(1 if own.shape[0] == 4 else 0))
                own.copy_(own * (sign.unsqueeze(1) if own.shape[0] == 4 else sign))
                assert torch.allclose(own, other, atol=1e-5)
            other.copy_(own)
    assert_close(logits(session.model, session.batch), logits(peft_model, session.batch))

    optimizer = torch.optim.AdamW([other for _, other in pairs.values()], lr=1e-3, weight_decay=0)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = peft_model(**session.batch).loss
        loss.backward()
        assert session.train(1, lr=1e-3)[0] == pytest.approx(loss.item(), rel=1e-6, abs=1e-6)
        for key, (own, other) in pairs.items():
            if "key" in key or "k_proj" in key:  # keys have tiny gradients, of which Adam amplifies rounding
                continue
            if step == 0:
                assert_close(own.grad, other.grad)
        optimizer.step()
    assert_close(logits(session.model, session.batch), logits(peft_model, session.batch), tolerance=3e-6)


def test_dora_with_drop_base_equals_peft_under_dropout() -> None:
    """Loss and all gradients under the same mask, with magnitudes that differ from the row norms."""
    session = tiny_session("dora", alpha=8.0, dropout=0.3, drop_base=True)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.3, target_modules=list(session.layers), use_dora=True)
    peft_model = get_peft_model(tiny_model("decoder"), config).train()
    for name, layer in session.layers.items():
        peft_model.base_model.model.get_submodule(name).lora_dropout["default"] = DropoutWithMaskOfLayer(layer)
    pairs = tensor_pairs(session.layers, peft_model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for own, other in pairs.values():
            other.copy_(own.mul_(1.5).add_(0.1 * torch.randn(own.shape, generator=generator)))
    losses = [model(**session.batch).loss for model in (session.model, peft_model)]
    torch.autograd.backward(losses)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for own, other in pairs.values():
        assert_close(own.grad, other.grad, tolerance=1e-5)
    plain = tiny_session("dora", alpha=8.0, dropout=0.3)
    with torch.no_grad():
        for (own, _), (target, _) in zip(pairs.values(), tensor_pairs(plain.layers, peft_model).values(), strict=True):
            target.copy_(own)
    assert abs(plain.model(**plain.batch).loss.item() - losses[1].item()) > 1e-3, (
        "dropping only the input of B A gives another loss"
    )


class DropoutWithMaskOfLayer(torch.nn.Module):
    """Replaces peft's dropout in a layer by the mask that this package's layer draws."""

    def __init__(self, layer: AdaptedLinear) -> None:
        super().__init__()
        self.call = layer.call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x_tn = x.reshape(-1, x.shape[-1])
        return self.call(1.0, len(x_tn), None).dropped(x_tn).view_as(x)


def tensor_pairs(layers, peft_model) -> dict:
    """Name -> (tensor of this package's layer, the same tensor of peft's)."""
    pairs = {}
    for name, layer in layers.items():
        module = peft_model.base_model.model.get_submodule(name)
        pairs[f"{name}.A"] = layer.A, module.lora_A["default"].weight
        pairs[f"{name}.B"] = layer.B, module.lora_B["default"].weight
        if hasattr(layer, "magnitude"):
            pairs[f"{name}.magnitude"] = layer.magnitude, module.lora_magnitude_vector["default"].weight
    return pairs


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))
