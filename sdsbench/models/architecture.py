"""Names and shapes of a model's linear layers from its config.json alone: no torch, no weights.

The configuration check needs them within seconds (does a target match, is the rank too large), and so do memory
estimates. Names are those of the task models: ...ForCausalLM, ...ForSequenceClassification, ...ForImageClassification.
Heads and poolers, which no method adapts, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdsbench.core.errors import Unavailable

FOLDER = Path(__file__).parent / "architectures"
Shapes = dict[str, tuple[int, int]]  # name -> (m, n) = (output size, input size)


def shipped(name: str) -> dict[str, Any]:
    """The config.json facts of a known architecture (mistral_7b, ...).

    Raises Unavailable if the package ships none of that name.
    """
    path = FOLDER / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise Unavailable(f"no shipped architecture {name!r}: known are {known}")
    return json.loads(path.read_text())


def linear_layers(config: Mapping[str, Any]) -> Shapes:
    """(m, n) of every nn.Linear of the body, by dotted name, in the model's order.

    Raises Unavailable for a model_type that is not covered.
    """
    model_type = config.get("model_type")
    if model_type not in _FAMILIES:
        raise Unavailable(f"model_type {model_type!r}: layer names are known for {', '.join(_FAMILIES)}")
    prefix, block = _FAMILIES[model_type]
    shapes = block(config)
    return {
        f"{prefix}.{layer}.{name}": shape
        for layer in range(config["num_hidden_layers"])
        for name, shape in shapes.items()
    }


def _llama(config: Mapping[str, Any]) -> Shapes:
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_size = config.get("head_dim") or hidden // heads
    queries, keys = heads * head_size, (config.get("num_key_value_heads") or heads) * head_size
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def _bert(config: Mapping[str, Any]) -> Shapes:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }


def _vit(config: Mapping[str, Any]) -> Shapes:
    hidden = config["hidden_size"]
    inner = config.get("intermediate_size") or hidden * config["mlp_ratio"]
    attention: Shapes = {f"attention.{name}_proj": (hidden, hidden) for name in "qkvo"}
    if config.get("use_swiglu_ffn"):
        inner = (int(inner * 2 / 3) + 7) // 8 * 8
        gated: Shapes = {f"mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
        return attention | gated | {"mlp.down_proj": (hidden, inner)}
    return attention | {"mlp.fc1": (inner, hidden), "mlp.fc2": (hidden, inner)}


_FAMILIES: dict[str, tuple[str, Callable[[Mapping[str, Any]], Shapes]]] = {
    "llama": ("model.layers", _llama),
    "mistral": ("model.layers", _llama),
    "gemma": ("model.layers", _llama),
    "gemma2": ("model.layers", _llama),
    "qwen3": ("model.layers", _llama),
    "bert": ("bert.encoder.layer", _bert),
    "roberta": ("roberta.encoder.layer", _bert),
    "vit": ("vit.layers", _vit),
    "dinov2": ("dinov2.encoder.layer", _vit),
}
