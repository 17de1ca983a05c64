"""A GGUF file -> a plain model folder."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path


def dequantise(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (fp32) and the tokenizer of a GGUF file into the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with contextlib.redirect_stderr(io.StringIO()):  # transformers' bar, which its own switch leaves on
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The loaded model refuses to be saved because it calls itself quantised; a copy without that flag does not.
    settings = quantised.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
