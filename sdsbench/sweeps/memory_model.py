"""The memory of one training step, from shapes alone: weights, what trains, what backward keeps, the largest transient.

What backward keeps is a count, not a fit: it equals the bytes that autograd saves (tests/sweeps/test_memory_model.py)
for decoders of the Llama kind on packed micro-batches. Per layer and token, with c bytes a compute value, H hidden,
Q = query heads x head size, K the same for keys, I inner:

    fp32 input of both norms (2 x 4 H) and their scales (2 x 4), normalised inputs (2 c H), rotated queries, attention
    outputs per sequence and joined (3 c Q), keys and values (2 c K), log-sum-exp (4 x heads), gate, up, silu(gate) and
    their product (4 c I)

and once: rotary cosine and sine (2 c head size a token), the gradient of the targets' hidden states (c H a target).
Gemma-2's attention with soft-capped scores also keeps its score matrices; that part is an estimate from above.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdsbench.configuration.check import config_file, layer_shapes
from sdsbench.configuration.schema import RunConfig
from sdsbench.lazy import torch
from sdsbench.methods import base as methods
from sdsbench.methods.base import Method
from sdsbench.methods.targets import matches

Shapes = Mapping[str, tuple[int, int]]
LLAMA_KIND = ("llama", "mistral", "gemma", "gemma2", "qwen3")
MOMENTS = {"adamw": 2, "momentum": 1, "sgd": 0}
CHUNK = 256  # target positions whose logits exist at once (training/cross_entropy.py)


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step by purpose."""

    weights: int  # the base, in the compute type
    method: int  # masters, gradients, optimizer state, buffers and state of the method
    saved: int  # kept for backward
    transient: int  # the largest temporary: logits of one chunk, or gradients inside one layer

    @property
    def total(self) -> int:
        return self.weights + self.method + self.saved + self.transient


def training_memory(config: RunConfig, lengths: Sequence[int], targets: int, compute_bytes: int = 2) -> Memory | None:
    """Memory of one micro-batch of sequences of `lengths` tokens with `targets` target positions.

    None where the model is no decoder of the Llama kind or its architecture is not known before download.
    """
    shapes, path = layer_shapes(config.model), config_file(config.model)
    if shapes is None or path is None:
        return None
    facts: dict[str, Any] = json.loads(path.read_text())
    if facts.get("model_type") not in LLAMA_KIND:
        return None
    method = methods.build(config.method)
    adapted = {name: shape for name, shape in shapes.items() if matches(name, config.method.targets)}
    return Memory(
        weights=_total_weights(facts, shapes) * compute_bytes,
        method=method_bytes(method, adapted, shapes, facts, config.train.optimizer, compute_bytes),
        saved=saved_bytes(method, adapted, facts, lengths, targets, compute_bytes),
        transient=_transient_bytes(facts, sum(lengths), targets, compute_bytes),
    )


def saved_bytes(
    method: Method, adapted: Shapes, facts: Mapping[str, Any], lengths: Sequence[int], targets: int, c: int
) -> int:
    """Bytes that autograd saves in one forward pass beside the model's own tensors."""
    tokens, layers, hidden = sum(lengths), facts["num_hidden_layers"], facts["hidden_size"]
    inner, heads, head_size, key_heads = _attention(facts)
    queries, keys = heads * head_size, key_heads * head_size
    block = 2 * (4 * hidden + 4) + c * (2 * hidden + 3 * queries + 2 * keys + 4 * inner) + 4 * heads
    total = tokens * (layers * block + 2 * c * head_size) + targets * (c * hidden + 8)
    if facts["model_type"] == "gemma2":
        scores = sum(length * length for length in lengths)
        total += layers * (tokens * (2 * (4 * hidden + 4) + 2 * c * queries) + heads * scores * (2 * c + 5))
    if not method.wraps_layers():  # all weights train: norms keep their inputs, the head its gradient
        total += 4 * facts["vocab_size"] * hidden + tokens * (4 * hidden + 4 + 8)
        total += (2 * layers + 1) * tokens * c * hidden
    elif method.name == "dora":  # outputs that nothing else keeps, and two vectors a layer
        kept = sum(m for name, (m, _) in adapted.items() if name.rsplit(".", 1)[-1] in _UNKEPT_OUTPUTS)
        total += tokens * c * kept + 8 * sum(m for m, _ in adapted.values())
    elif method.name in ("lora_xs", "lora_sb"):  # R A
        total += sum(4 * method.config.rank * n for _, n in adapted.values())
    return total


_UNKEPT_OUTPUTS = ("q_proj", "k_proj", "o_proj", "down_proj")  # rotated or added after the layer


def method_bytes(
    method: Method, adapted: Shapes, shapes: Shapes, facts: Mapping[str, Any], optimizer: str, compute_bytes: int
) -> int:
    """fp32 masters, gradients and optimizer state of what trains, buffers, and the method's own dense state."""
    rule = "sgd" if method.update_rule == "sgd" else optimizer
    per_value = 4 * (2 + MOMENTS[rule])
    if not method.wraps_layers():
        everything = getattr(method.config, "scope", "all") == "all"
        trained = _total_weights(facts, shapes) if everything else sum(m * n for m, n in adapted.values())
        return trained * (per_value if compute_bytes < 4 else per_value - 4)  # fp32 weights are their own masters
    total = 0
    for (m, n), count in Counter(adapted.values()).items():
        trained, buffers = _created(method, m, n)
        dense = method.state_bytes(m, n)
        total += count * (trained * per_value + max(buffers, dense))
    return total


def _created(method: Method, m: int, n: int) -> tuple[int, int]:
    """(trained values, bytes of buffers) that the method registers on an m x n layer, found on the meta device."""
    from sdsbench.methods.layer import AdaptedLinear

    with torch.device("meta"):
        linear = torch.nn.Linear(n, m, bias=False)
    layer = AdaptedLinear(linear, method, "layer")
    method.create(layer, torch.Generator().manual_seed(0))
    trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    return trained, sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers())


def _transient_bytes(facts: Mapping[str, Any], tokens: int, targets: int, c: int) -> int:
    """Logits of a chunk in compute type and fp32 with their gradients, or a layer's gradients in backward."""
    logits = min(CHUNK, targets) * facts["vocab_size"] * (8 + (2 * c if c < 4 else 0))
    inner, *_ = _attention(facts)
    return max(logits, tokens * c * (3 * inner + 2 * facts["hidden_size"]))


def _total_weights(facts: Mapping[str, Any], shapes: Shapes) -> int:
    embeddings = facts["vocab_size"] * facts["hidden_size"] * (1 if facts.get("tie_word_embeddings") else 2)
    norms = (2 * facts["num_hidden_layers"] + 1) * facts["hidden_size"]
    return sum(m * n for m, n in shapes.values()) + embeddings + norms


def _attention(facts: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """(inner size, query heads, head size, key heads)."""
    heads = facts["num_attention_heads"]
    head_size = facts.get("head_dim") or facts["hidden_size"] // heads
    return facts["intermediate_size"], heads, head_size, facts.get("num_key_value_heads") or heads
