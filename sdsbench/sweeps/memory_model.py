"""The memory of one training step, from shapes alone: weights, what trains, what backward keeps, the largest transient.

With activation checkpointing backward keeps the last norm, the head's and the rotary values; blocks exist in pieces,
one at a time, as the transient part.

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

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdsbench.core.lazy import torch
from sdsbench.methods import base as methods
from sdsbench.methods.base import Method
from sdsbench.methods.targets import matches
from sdsbench.runs.configuration.check import known_architecture
from sdsbench.runs.configuration.schema import RunConfig

Shapes = Mapping[str, tuple[int, int]]
LLAMA_KIND = ("llama", "mistral", "gemma", "gemma2", "qwen3")
MOMENTS = {"adamw": 2, "momentum": 1, "sgd": 0}
CHUNK = 256  # target positions whose logits exist at once (training/cross_entropy.py)
SMALLEST, BLOCK = (
    4096,
    256,
)  # values of a tensor with 8-bit moments, values that share a scale (training/in_backward.py)
UPDATED, UPDATE_BYTES = 2**23, 41  # values updated at once, and the bytes a value that this takes without a compiler


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step by purpose."""

    weights: int  # the base, in the compute type
    method: int  # masters, gradients, optimizer state, buffers and state of the method
    saved: int  # kept for backward
    transient: int  # the largest temporary: logits of one chunk, or gradients inside one layer
    factors: int = 0  # the part of `saved` that is factors, joined or cast

    @property
    def total(self) -> int:
        return self.weights + self.method + self.saved + self.transient


def training_memory(config: RunConfig, lengths: Sequence[int], targets: int, compute_bytes: int = 2) -> Memory | None:
    """Memory of one micro-batch of sequences of `lengths` tokens with `targets` target positions.

    None where the model is no decoder of the Llama kind or its architecture is not known before download.
    """
    known = known_architecture(config.model)
    if known is None or known.facts.get("model_type") not in LLAMA_KIND:
        return None
    facts, shapes = known.facts, known.shapes
    method, train = methods.build(config.method), config.train
    adapted = {name: shape for name, shape in shapes.items() if matches(name, config.method.targets)}
    batch = Batch(lengths, targets, compute_bytes)
    return Memory(
        weights=_total_weights(facts, shapes) * compute_bytes,
        method=method_bytes(method, adapted, shapes, facts, train.optimizer, compute_bytes),
        saved=saved_bytes(method, adapted, facts, batch, train.recomputes),
        transient=_transient_bytes(method, adapted, facts, batch, config),
        factors=0 if train.recomputes else factor_bytes(method, adapted, compute_bytes),
    )


@dataclass(frozen=True)
class Batch:
    """A micro-batch: sequences of `lengths` tokens, `targets` target positions, `c` bytes a compute value."""

    lengths: Sequence[int]
    targets: int
    c: int

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def saved_bytes(
    method: Method, adapted: Shapes, facts: Mapping[str, Any], batch: Batch, checkpointed: bool = False
) -> int:
    """Bytes that autograd saves in one forward pass beside the model's own tensors; `checkpointed`: outside of blocks,
    whose inputs lie in main memory (training/activation_checkpointing.py)."""
    hidden, layers, c, tokens = facts["hidden_size"], facts["num_hidden_layers"], batch.c, batch.tokens
    head_size = _attention(facts)[2]
    total = tokens * 2 * c * head_size + batch.targets * (c * hidden + 8)
    trains_all = not method.wraps_layers()
    if checkpointed:
        total += tokens * (4 * hidden + 4)  # the last norm
    else:
        total += layers * block_bytes(method, adapted, facts, batch)
        total += tokens * (4 * hidden + 4) * trains_all  # the first norm too
    if facts["model_type"] == "gemma2":  # 1 + the last norm's weight
        total += 4 * hidden
    if trains_all:  # the last norm's output, ids, and what the gradient of the head is made of
        total += tokens * (_norm_bytes(facts, c) * hidden + 8) + batch.targets * (c * hidden + 4 + 8)
    return total


def block_bytes(method: Method, adapted: Shapes, facts: Mapping[str, Any], batch: Batch) -> int:
    """Bytes that one of the model's blocks saves (the average over blocks)."""
    tokens, c, layers, hidden = batch.tokens, batch.c, facts["num_hidden_layers"], facts["hidden_size"]
    inner, heads, head_size, key_heads = _attention(facts)
    queries, keys = heads * head_size, key_heads * head_size
    total = tokens * (2 * (4 * hidden + 4) + c * (2 * hidden + 3 * queries + 2 * keys + 4 * inner) + 4 * heads)
    norms = 2
    if facts["model_type"] == "gemma2":
        norms, scores = 4, sum(length * length for length in batch.lengths)
        total += tokens * (2 * (4 * hidden + 4) + 2 * c * queries) + heads * scores * (2 * c + 5) + 4 * 4 * hidden
    if not method.wraps_layers():  # norms keep what their weights are multiplied with
        return total + norms * tokens * _norm_bytes(facts, c) * hidden
    if method.name == "dora":  # outputs that nothing else keeps, and the norm
        kept = sum(m for name, (m, _) in adapted.items() if name.rsplit(".", 1)[-1] in _UNKEPT_OUTPUTS)
        total += (tokens * c * kept + 4 * sum(m for m, _ in adapted.values())) // layers
    return total + factor_bytes(method, adapted, c) // layers


def factor_bytes(method: Method, adapted: Shapes, c: int) -> int:
    """Bytes of factors that the layers' products used and that are no parameters (methods/layer.py): joined (SDS-LoRA
    after its warm-up), cast, or computed (R A).
    """
    if not method.wraps_layers():
        return 0
    rank, joint_rank = method.config.rank, method.joint_rank()
    if joint_rank > rank or c < 4:
        return sum(joint_rank * c * (m + n) for m, n in adapted.values())
    return sum(4 * rank * n for _, n in adapted.values()) if method.name in ("lora_xs", "lora_sb") else 0


def _norm_bytes(facts: Mapping[str, Any], c: int) -> int:
    """Bytes of a normalised value at the moment that it is multiplied with the norm's weight (Gemma: in fp32)."""
    return 4 if str(facts["model_type"]).startswith("gemma") else c


_UNKEPT_OUTPUTS = ("q_proj", "k_proj", "o_proj", "down_proj")  # rotated or added after the layer


def method_bytes(
    method: Method, adapted: Shapes, shapes: Shapes, facts: Mapping[str, Any], optimizer: str, compute_bytes: int
) -> int:
    """fp32 masters, gradients and optimizer state of what trains, buffers, and the method's own dense state."""
    if optimizer == "adamw8bit":
        everything = getattr(method.config, "scope", "all") == "all"
        return sum(_eight_bit_bytes(size) for size in (_tensor_sizes(facts, shapes) if everything else _sizes(adapted)))
    rule = "sgd" if method.update_rule == "sgd" else optimizer
    per_value = 4 * (2 + MOMENTS[rule])
    if not method.wraps_layers():
        everything = getattr(method.config, "scope", "all") == "all"
        trained = _total_weights(facts, shapes) if everything else sum(_sizes(adapted))
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


def _eight_bit_bytes(size: int) -> int:
    """Moments of a tensor in 8-bit codes with an fp32 scale a block; of a small one in fp32, beside its master."""
    if size < SMALLEST or size % BLOCK:
        return 12 * size
    return 2 * (size + 4 * size // BLOCK)


def _transient_bytes(method: Method, adapted: Shapes, facts: Mapping[str, Any], batch: Batch, config: RunConfig) -> int:
    """The largest of: logits of a chunk in compute type and fp32 with their gradients; a layer's gradients in backward.

    With checkpointing a piece of one block is computed again beside those. Where weights train, gradients that wait for
    their update are counted: of the head (to the end of the pass where it is tied to the embedding), and of a block.
    """
    c, hidden, inner = batch.c, facts["hidden_size"], facts["intermediate_size"]
    logits = min(CHUNK, batch.targets) * facts["vocab_size"]
    logits *= 20 if facts.get("final_logit_softcapping") else 4 + (c if c < 4 else 0)
    in_layer = batch.tokens * c * (3 * inner + 2 * hidden)
    if config.train.recomputes:
        from sdsbench.training.activation_checkpointing import pieces

        # A piece of the tokens, and a block's whole output, its gradient, and both of its input.
        piece = max((Batch(group, 0, c) for group in pieces(batch.lengths)), key=lambda piece: piece.tokens)
        in_layer = piece.tokens * c * (3 * inner + 2 * hidden) + block_bytes(method, adapted, facts, piece)
        in_layer += 4 * batch.tokens * c * hidden
    if method.wraps_layers() or c == 4:
        return max(logits, in_layer)
    embedding = c * facts["vocab_size"] * hidden
    block = c * sum(_sizes(adapted)) // facts["num_hidden_layers"]
    update = UPDATE_BYTES * min(UPDATED, facts["vocab_size"] * hidden) if config.train.optimizer == "adamw8bit" else 0
    tied = embedding if facts.get("tie_word_embeddings") else 0
    return max(embedding + logits, tied + in_layer + block + update, tied + embedding + update)


def _sizes(shapes: Shapes) -> list[int]:
    return [m * n for m, n in shapes.values()]


def _tensor_sizes(facts: Mapping[str, Any], shapes: Shapes) -> list[int]:
    """Values of every weight: layers, embeddings, norms."""
    embedding = facts["vocab_size"] * facts["hidden_size"]
    norms = (4 if facts["model_type"] == "gemma2" else 2) * facts["num_hidden_layers"] + 1
    tied = facts.get("tie_word_embeddings")
    return [*_sizes(shapes), *[embedding] * (1 if tied else 2), *[facts["hidden_size"]] * norms]


def _total_weights(facts: Mapping[str, Any], shapes: Shapes) -> int:
    return sum(_tensor_sizes(facts, shapes))


def _attention(facts: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """(inner size, query heads, head size, key heads)."""
    heads = facts["num_attention_heads"]
    head_size = facts.get("head_dim") or facts["hidden_size"] // heads
    return facts["intermediate_size"], heads, head_size, facts.get("num_key_value_heads") or heads
