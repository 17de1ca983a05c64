"""Which of peft's adapters vLLM can serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values that vLLM's --max-lora-rank accepts


def vllm_rank(adapter: Mapping[str, Any]) -> int | None:
    """The value of --max-lora-rank for an adapter_config.json; None for an adapter that vLLM cannot serve."""
    if adapter["peft_type"] != "LORA" or adapter.get("use_dora") or adapter.get("modules_to_save"):
        return None
    return next((rank for rank in RANKS if rank >= adapter["r"]), None)
