"""Packed micro-batches: the loss and the gradients of the padded batch."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig

from sdsbench.training.attention import _varlen_kernel, packed_attention
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


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_of_the_padded_batch(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager")
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.ndim == 2 else 1)
    batch = examples()
    width = max(example.length for example in batch)
    ids = torch.tensor([[*e.ids, *[0] * (width - e.length)] for e in batch])
    mask = torch.tensor([[1] * e.length + [0] * (width - e.length) for e in batch])
    labels = torch.tensor(
        [[-100] * e.first_target + list(e.ids[e.first_target :]) + [-100] * (width - e.length) for e in batch]
    )
    targets = sum(example.targets for example in batch)
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    expected.backward()
    gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    found = CausalObjective(None, None, 0).loss(model, batch, torch.device("cpu")) / targets
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for key, parameter in model.named_parameters():
        scale = gradients[key].abs().max()
        assert (parameter.grad - gradients[key]).abs().max() <= 2e-5 * scale, key


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("window", (None, 6))
def test_one_kernel_for_all_segments_on_cuda(window: int | None) -> None:
    if _varlen_kernel() is None:
        pytest.skip("this torch has no varlen_attn with windows and grouped queries")
    generator = torch.Generator("cuda").manual_seed(0)
    lengths = [13, 4, 9]
    shapes = ((1, 4, 26, 64), (1, 2, 26, 64), (1, 2, 26, 64))
    tensors = [torch.randn(shape, device="cuda", generator=generator) for shape in shapes]
    low = [tensor.bfloat16().requires_grad_() for tensor in tensors]
    high = [tensor.detach().float().requires_grad_() for tensor in low]
    results = []
    for inputs in (low, high):
        out = packed_attention(torch.nn.Module(), *inputs, None, segment_lengths=lengths, sliding_window=window)[0]
        (out.float() * torch.arange(64, device="cuda")).sum().backward()
        results.append([out.float(), *(tensor.grad.float() for tensor in inputs)])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 2e-2 * expected.abs().max()
