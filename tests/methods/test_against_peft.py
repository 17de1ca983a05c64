"""LoRA, rsLoRA, DoRA, PiSSA and OLoRA against peft: forward, gradients and 20 AdamW steps in fp32."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from sdsbench.methods.layer import AdaptedLinear
from tests.methods.tiny import FAMILIES, logits, start, tiny_model

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
    ours = start(name, family, **({"svd": "exact", "alpha": 4.0} if name == "pissa" else {"alpha": 8.0}))
    config = LoraConfig(
        r=4, lora_alpha=int(ours.method.config.alpha), target_modules=list(ours.layers), **PEFT_KEYS[name]
    )
    theirs = get_peft_model(tiny_model(family), config)
    pairs = _pairs(ours.layers, theirs)
    with torch.no_grad():
        for mine, his in pairs.values():
            if "init_lora_weights" in PEFT_KEYS[name]:  # both factorised W0 themselves: equal up to the signs of pairs
                sign = torch.sign((mine * his).sum(1 if mine.shape[0] == 4 else 0))
                mine.copy_(mine * (sign.unsqueeze(1) if mine.shape[0] == 4 else sign))
                assert torch.allclose(mine, his, atol=1e-5)
            his.copy_(mine)
    _close(logits(ours.model, ours.batch), logits(theirs, ours.batch))

    optimizer = torch.optim.AdamW([his for _, his in pairs.values()], lr=1e-3, weight_decay=0)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = theirs(**ours.batch).loss
        loss.backward()
        assert ours.train(1, lr=1e-3)[0] == pytest.approx(loss.item(), rel=1e-6, abs=1e-6)
        for key, (mine, his) in pairs.items():
            if "key" in key or "k_proj" in key:  # softmax hardly sees key factors: Adam divides noise by noise
                continue
            if step == 0:
                _close(mine.grad, his.grad)
        optimizer.step()
    _close(logits(ours.model, ours.batch), logits(theirs, ours.batch), tolerance=3e-6)


def test_dora_drops_the_input_of_both_products_as_peft() -> None:
    """One mask for both libraries: the training loss and all gradients, at magnitudes other than rownorm."""
    ours = start("dora", alpha=8.0, dropout=0.3, drop_base=True)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.3, target_modules=list(ours.layers), use_dora=True)
    theirs = get_peft_model(tiny_model("decoder"), config).train()
    for name, layer in ours.layers.items():
        theirs.base_model.model.get_submodule(name).lora_dropout["default"] = _Dropped(layer)
    pairs = _pairs(ours.layers, theirs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for mine, his in pairs.values():
            his.copy_(mine.mul_(1.5).add_(0.1 * torch.randn(mine.shape, generator=generator)))
    losses = [model(**ours.batch).loss for model in (ours.model, theirs)]
    torch.autograd.backward(losses)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for mine, his in pairs.values():
        _close(mine.grad, his.grad, tolerance=1e-5)
    plain = start("dora", alpha=8.0, dropout=0.3)
    with torch.no_grad():
        for (mine, _), (other, _) in zip(pairs.values(), _pairs(plain.layers, theirs).values(), strict=True):
            other.copy_(mine)
    assert abs(plain.model(**plain.batch).loss.item() - losses[1].item()) > 1e-3, "other than the update's input alone"


class _Dropped(torch.nn.Module):
    """peft's dropout of a layer with the mask that our layer draws."""

    def __init__(self, layer: AdaptedLinear) -> None:
        super().__init__()
        self.call = layer.call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x_tn = x.reshape(-1, x.shape[-1])
        return self.call(1.0, len(x_tn), None).dropped(x_tn).view_as(x)


def _pairs(layers, theirs) -> dict:
    pairs = {}
    for name, layer in layers.items():
        module = theirs.base_model.model.get_submodule(name)
        pairs[f"{name}.A"] = layer.A, module.lora_A["default"].weight
        pairs[f"{name}.B"] = layer.B, module.lora_B["default"].weight
        if hasattr(layer, "magnitude"):
            pairs[f"{name}.magnitude"] = layer.magnitude, module.lora_magnitude_vector["default"].weight
    return pairs


def _close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))
