"""Small random models of many architectures, and model folders of them with the tokenizer of micro."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import sdsbench

MICRO = Path(sdsbench.__file__).parent / "synthetic" / "micro"
VOCABULARY = 1024
_LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "max_position_embeddings": 512,
}  # fmt: skip
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_GPT = {**{key: _LLAMA[key] for key in _LLAMA if key not in ("num_key_value_heads",)}}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": VOCABULARY, "bos_token_id": 1,
         "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
PACKED_DECODERS: dict[str, dict[str, Any]] = {
    "qwen2": _LLAMA,
    "phi3": _LLAMA,
    "gemma3_text": {**_LLAMA, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "olmo2": _LLAMA,
    "mixtral": {**_LLAMA, **_EXPERTS},
    "gpt_neox": _GPT,
    "starcoder2": {**_LLAMA, "sliding_window": None},
    "smollm3": _LLAMA,
    "gpt2": _GPT2,
}
"""Decoders whose loss over packed rows equals the sum of the losses that they compute row by row."""
PADDED_DECODERS: dict[str, dict[str, Any]] = {
    "stablelm": _LLAMA,
    "granite": {**_LLAMA, "logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "cohere": {**_LLAMA, "logit_scale": 0.25},
    "phi": _LLAMA,
    "gptj": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "rotary_dim": 8,
        "n_positions": 512,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "falcon": {**_GPT, "alibi": True, "new_decoder_architecture": False, "ffn_hidden_size": 48},
    "bloom": {
        "hidden_size": 32,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "mamba": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 8,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "gpt_oss": {**_LLAMA, **_EXPERTS, "head_dim": 8, "sliding_window": 16},
}
"""Decoders whose packed loss differs, so that rows are padded: they scale or shift logits, or attend otherwise."""
STATE_SPACES = {"mamba"}
"""The kinds that keep a state in the place of keys and values: they cannot answer in batches."""
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "bert": {**_GPT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "roberta": {**_GPT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "vocab_size": VOCABULARY,
                   "dropout": 0.0, "attention_dropout": 0.0, "pad_token_id": 0},
    "modernbert": {**_GPT, "global_attn_every_n_layers": 1, "cls_token_id": 1, "sep_token_id": 2},
}  # fmt: skip
VIT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
       "patch_size": 8}  # fmt: skip


def random_model(kind: str, settings: dict[str, Any], family: str = "decoder") -> Any:
    """A model with the same weights at each call; biases are drawn too, and all values are large enough to matter."""
    classes = {
        "decoder": AutoModelForCausalLM,
        "encoder": AutoModelForSequenceClassification,
        "vision": AutoModelForImageClassification,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = classes[family].from_config(AutoConfig.for_model(kind, **settings)).eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(std=0.15)
            elif name.endswith("bias") or "sinks" in name:
                parameter.data.normal_(std=0.5)
    return model


def model_folder(folder: Path, kind: str) -> Path:
    """Save a random model of that model_type with a tokenizer, or with image statistics for `vit`."""
    settings, family = {**PACKED_DECODERS, **PADDED_DECODERS}.get(kind), "decoder"
    if kind == "vit":
        settings, family = VIT, "vision"
    elif settings is None:
        settings, family = CLASSIFIERS[kind], "encoder"
    random_model(kind, settings, family).save_pretrained(folder)
    if kind == "vit":
        (folder / "preprocessor_config.json").write_text(
            '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
        )
        return folder
    tokenizer = AutoTokenizer.from_pretrained(MICRO)
    assert len(tokenizer) <= VOCABULARY
    tokenizer.save_pretrained(folder)
    return folder
