"""Packed micro-batches have the loss and the gradients of the padded batch; attention kernels and their limits."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig

from sdsbench.training import attention
from sdsbench.training.attention import (
    LARGEST_HEAD,
    _varlen_kernel,
    _varlen_serves,
    packed_attention,
    reason_against_varlen,
)
from sdsbench.training.causal import CausalObjective, EncodedText

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 60,
}  # fmt: skip
CONFIGS = {
    "grouped queries": LlamaConfig(**SHAPE),
    "sliding window": MistralConfig(**SHAPE, sliding_window=5),
    "soft caps": Gemma2Config(**SHAPE, sliding_window=5, attn_logit_softcapping=4.0, final_logit_softcapping=3.0),
}


def examples() -> list[EncodedText]:
    generator = torch.Generator().manual_seed(0)
    return [
        EncodedText(tuple(torch.randint(3, 60, (length,), generator=generator).tolist()), length // 3)
        for length in (13, 4, 9, 1, 7)
    ]


TOLERANCES = {torch.float32: (1e-5, 2e-5), torch.bfloat16: (1e-2, 5e-2)}
"""Tolerances of the loss (relative) and of gradients (relative to the largest); in bf16 every layer rounds."""


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_loss_and_gradients_equal_the_padded_batchs(name: str, dtype: torch.dtype, device: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager")
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.ndim == 2 else 1)
    model.to(device, dtype)
    batch = examples()
    width = max(example.length for example in batch)
    ids = torch.tensor([[*e.ids, *[0] * (width - e.length)] for e in batch], device=device)
    mask = torch.tensor([[1] * e.length + [0] * (width - e.length) for e in batch], device=device)
    labels = torch.tensor(
        [[-100] * e.first_target + list(e.ids[e.first_target :]) + [-100] * (width - e.length) for e in batch],
        device=device,
    )
    targets = sum(example.targets for example in batch)
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    expected.backward()
    gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    found = CausalObjective(None, None, 0).loss(model, batch, torch.device(device)) / targets
    found.backward()
    of_loss, of_gradients = TOLERANCES[dtype]
    assert found.item() == pytest.approx(expected.item(), rel=of_loss)
    for key, parameter in model.named_parameters():
        scale = gradients[key].abs().max()
        assert (parameter.grad - gradients[key]).abs().max() <= of_gradients * scale, key


CASES = {
    "causal": {}, "windowed": {"sliding_window": 6}, "both directions": {"causal": False},
    "soft-capped": {"softcap": 4.0}, "scaled": {"scaling": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)], ids=["own keys", "grouped"])
@pytest.mark.parametrize("size", [64, 80, 96, 128, 192, 256, 264])
@pytest.mark.parametrize("case", CASES)
def test_bf16_attention_is_close_to_fp32_attention_sequence_by_sequence(
    case: str, size: int, heads: tuple[int, int], device: str
) -> None:
    """Output and gradients agree to 2 % of the largest value; on CUDA, bf16 uses the varlen kernel where it can."""
    generator = torch.Generator().manual_seed(0)
    # Kernels of a GPU work on tiles of up to 128 positions: one sequence goes over their borders.
    lengths = [13, 4, 1, 9] if device == "cpu" else [13, 4, 300, 1, 9]
    module, options = torch.nn.Module(), dict(CASES[case])
    module.is_causal = options.pop("causal", True)
    shapes = [(1, number, sum(lengths), size) for number in (heads[0], heads[1], heads[1])]
    low = [torch.randn(shape, generator=generator).to(device, torch.bfloat16).requires_grad_() for shape in shapes]
    high = [tensor.detach().float().requires_grad_() for tensor in low]
    if device == "cuda":
        served = case != "soft-capped" and size <= LARGEST_HEAD and _varlen_kernel() is not None
        assert _varlen_serves(low[0], options.get("softcap"), 0.0) == (
            served and torch.cuda.get_device_capability() >= (8,)
        )
    results = []
    for inputs in (low, high):
        out = packed_attention(module, *inputs, None, segment_lengths=lengths, **options)[0]
        (out.float() * torch.arange(size, device=device)).sum().backward()
        results.append([out.float(), *(tensor.grad.float() for tensor in inputs)])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 2e-2 * expected.abs().max()


@pytest.mark.parametrize(
    ("capability", "dtype", "size", "softcap", "dropout", "reason"),
    [
        ((8, 0), torch.bfloat16, 256, None, 0.0, None),
        ((8, 6), torch.float16, 64, None, 0.0, None),
        ((7, 5), torch.float16, 64, None, 0.0, "compute capability 8.0, this GPU has 7.5"),
        ((9, 0), torch.float32, 64, None, 0.0, "in 16 bits, this run in float32"),
        ((9, 0), torch.bfloat16, 264, None, 0.0, "up to 256 in multiples of 8, this model has 264"),
        ((9, 0), torch.bfloat16, 60, None, 0.0, "up to 256 in multiples of 8, this model has 60"),
        ((9, 0), torch.bfloat16, 64, 50.0, 0.0, "caps no scores"),
        ((9, 0), torch.bfloat16, 64, None, 0.1, "drops no attention weights"),
    ],
)
def test_limits_of_the_one_kernel(
    capability: tuple[int, int], dtype: torch.dtype, size: int, softcap: float | None, dropout: float,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(attention, "_capability", lambda _: capability)
    found = reason_against_varlen(torch.device("cuda"), dtype, size, softcap, dropout)
    assert found is None if reason is None else found is not None and reason in found


def test_varlen_kernel_is_called_only_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def kernel(q: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        calls.append(q.shape[-1])
        return q

    monkeypatch.setattr(attention, "_varlen_kernel", lambda: kernel)
    for size, dtype in ((64, torch.bfloat16), (60, torch.bfloat16), (264, torch.bfloat16), (128, torch.float32)):
        q = torch.ones(1, 4, 6, size, device="meta", dtype=dtype)
        found = packed_attention(torch.nn.Module(), q, q, q, None, segment_lengths=[4, 2])[0]
        assert found.shape == (1, 6, 4, size)
        packed_attention(torch.nn.Module(), q, q, q, None, segment_lengths=[4, 2], dropout=0.1)
    assert calls == [64]


def test_torch_without_the_varlen_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_varlen_kernel", lambda: None)
    assert "has no varlen_attn" in str(reason_against_varlen(torch.device("cuda"), torch.bfloat16, 64, None, 0.0))
