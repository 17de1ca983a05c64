"""The memory of one training step of BERT and RoBERTa classifiers, whose sentences lie end to end: a count, not a fit.

What backward keeps equals what autograd saves (tests/sweeps/test_memory_encoders.py). Per layer and token, with c bytes
a compute value, H hidden, I inner: queries, keys, values and attention outputs (4 c H), log-sum-exp (4 x heads), the
inputs of both norms (2 c H) with mean and scale (4 c), the input of the activation (c I), and the input of each adapted
layer: of query, key and value together (c H), attention.output.dense (c H), intermediate.dense (c H), output.dense
(c I). Masks of the base's own dropout take a byte a value, as CUDA keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdsbench.methods import base as methods
from sdsbench.methods.base import Method
from sdsbench.methods.targets import matches
from sdsbench.runs.configuration.check import known_architecture
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.sweeps.memory_model import Memory, Shapes, factor_bytes, method_bytes

KINDS = ("bert", "roberta")
DROPOUT = 0.1  # of both bases, where their config.json does not say
LABELS = 3  # the most classes of a GLUE task


def encoder_memory(config: RunConfig, lengths: Sequence[int], c: int) -> Memory | None:
    """Memory of one micro-batch of sentences of `lengths` tokens; None for models of other kinds."""
    known = known_architecture(config.model)
    if known is None or known.facts.get("model_type") not in KINDS:
        return None
    facts, shapes = {"tie_word_embeddings": True, **known.facts}, known.shapes
    method = methods.build(config.method)
    adapted = {name: shape for name, shape in shapes.items() if matches(name, config.method.targets)}
    hidden, inner = facts["hidden_size"], facts["intermediate_size"]
    embedded = (facts["vocab_size"] + facts["max_position_embeddings"] + 1) * hidden
    head = hidden * hidden
    return Memory(
        weights=c * (sum(m * n for m, n in shapes.values()) + embedded + head),
        method=method_bytes(method, adapted, shapes, facts, config.train.optimizer, c) + 16 * head,
        saved=saved_bytes(method, adapted, facts, lengths, c),
        transient=sum(lengths) * c * 2 * (inner + hidden),
    )


def saved_bytes(method: Method, adapted: Shapes, facts: Mapping[str, Any], lengths: Sequence[int], c: int) -> int:
    """Bytes that autograd saves in one forward pass beside the model's own tensors; the head trains."""
    tokens, rows, layers = sum(lengths), len(lengths), facts["num_hidden_layers"]
    hidden, inner, heads = facts["hidden_size"], facts["intermediate_size"], facts["num_attention_heads"]
    masks = facts.get("hidden_dropout_prob", DROPOUT) > 0
    trains_all = not method.wraps_layers()
    kinds = {name.split(".", 4)[-1] for name in adapted}  # attention.self.query, output.dense ...
    inputs = (
        hidden * bool(trains_all or any(kind.startswith("attention.self.") for kind in kinds))
        + hidden * bool(trains_all or "attention.output.dense" in kinds)
        + hidden * bool(trains_all or "intermediate.dense" in kinds)
        + inner * bool(trains_all or "output.dense" in kinds)
    )
    block = c * (6 * hidden + inner + inputs + 4) + 4 * heads + 2 * hidden * masks
    total = layers * tokens * block
    head_inputs = 1 + (trains_all or facts["model_type"] == "roberta")  # BERT's pooler belongs to the base
    total += 4 + rows * (c * hidden * head_inputs + 4 * LABELS + 16)  # loss, classes, indices of first tokens, labels
    if trains_all:  # the embeddings' norm, and three kinds of ids
        total += tokens * (c * hidden + 2 * c + 24 + hidden * masks)
    elif method.name == "dora":  # outputs of adapted layers, and the norm
        total += sum((tokens * c + 4) * m for m, _ in adapted.values())
    return total + factor_bytes(method, adapted, c)
