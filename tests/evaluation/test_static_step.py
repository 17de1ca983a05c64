"""A static step must read no value of a tensor, or CUDA could not capture it; tested on meta tensors, without CUDA."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from sdsbench.evaluation.decoding import last_logits
from sdsbench.evaluation.key_value_cache import reserved_cache
from sdsbench.evaluation.static_step import StaticStep
from tests.models.folders import PACKED_DECODERS, PADDED_DECODERS, random_model

META = torch.device("meta")
KINDS = [
    "qwen2", "phi3", "gemma3_text", "olmo2", "gpt_neox", "starcoder2", "smollm3", "stablelm", "granite", "cohere",
    "phi", "gptj", "mixtral",
]  # fmt: skip


def run_static_step(kind: str, **changes: Any) -> None:
    """Run one step of a bf16 model on the meta device, where reading a value or mixing devices raises."""
    facts = {**PACKED_DECODERS, **PADDED_DECODERS}[kind] | changes
    model = random_model(kind, {**facts, "sliding_window": 4096} if facts.get("sliding_window") else facts)
    model.to(META, torch.bfloat16)
    config, rows, columns, capacity = model.config, 3, 5, 64
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = reserved_cache(config, capacity)
    for layer in cache.layers:
        layer.update(*torch.empty(2, rows, heads, columns, size, device=META, dtype=torch.bfloat16))
    tokens, mask = (torch.zeros(*shape, dtype=torch.long, device=META) for shape in ((rows,), (rows, capacity)))
    step = StaticStep(
        partial(last_logits, model), model.dtype, tokens, tokens[:, None].clone(), mask, cache, captured=False
    )
    step(columns + 1)


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_a_static_step_reads_no_value(kind: str) -> None:
    run_static_step(kind)


@torch.inference_mode()
def test_rotations_that_depend_on_the_longest_row_read_a_value() -> None:
    """So the test above can fail. On CUDA such a model is decoded with plain steps."""
    with pytest.raises(RuntimeError, match="meta tensors"):
        run_static_step("qwen2", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
