"""Display names of methods, models and tasks in tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sdsbench.methods.base import lookup

MODEL_TITLES = {
    "mistral_7b": "Mistral-7B",
    "llama2_7b": "LLaMA-2 7B",
    "gemma2_9b": "Gemma-2 9B",
    "gemma_2b": "Gemma-2B",
    "llama3_8b": "Llama-3 8B",
    "llama3.2_3b": "Llama-3.2 3B",
    "roberta_large": "RoBERTa-large",
    "vit_base": "ViT-Base",
    "vit_large": "ViT-Large",
    "smollm2_135m": "SmolLM2-135M",
    "minilm": "MiniLM-L6",
    "dinov2_small": "DINOv2-small",
    "qwen3_0.6b": "Qwen3-0.6B",
    "micro": "micro",
    "vit_micro": "ViT micro",
}
TASK_TITLES = {
    "gsm8k": "GSM8K",
    "math": "MATH",
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "social_i_qa": "SIQA",
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "openbookqa": "OBQA",
    "glue/cola": "CoLA",
    "glue/rte": "RTE",
    "glue/mrpc": "MRPC",
    "glue/stsb": "STS-B",
    "glue/qnli": "QNLI",
    "glue/sst2": "SST-2",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "resisc45": "RESISC45",
    "food101": "Food-101",
    "dtd": "DTD",
    "cub200": "CUB-200",
    "cars": "Cars",
    "sun397": "SUN397",
}


def method_title(method: str, rank: int | None = None, form: str = "") -> str:
    """A title such as `LoRA, r 32`: the title from the method's class, or the name of an unregistered method.

    `form` is a variant (`method.variant=reset_lora, method.refresh=every`), replaced by the class's wording for it
    (form_titles) if there is one.
    """
    titles = _own(method, "form_titles") or {}
    words = [_worded(titles, word) for word in (form.split(", ") if form else [])]
    title = next((word for word in words if word and word[0] != ","), _own(method, "title") or method)
    return "".join([title if rank is None else f"{title}, r {rank}", *(word for word in words if word[:1] == ",")])


def _worded(titles: Mapping[str, str], word: str) -> str:
    key, _, value = word.partition("=")
    return titles.get(word, titles.get(f"{key}=", f", {word}").replace("{}", value))


def method_order(method: str) -> tuple[bool, str, str]:
    """Sort key of methods: first those that train the base, then by date of their paper, then those without a paper."""
    return not trains_base(method), str(_own(method, "arxiv") or "none"), method


def trains_base(method: str) -> bool:
    """Whether a method trains the model's own weights (full fine-tuning)."""
    return bool(_own(method, "trains_base"))


@cache
def _own(method: str, attribute: str) -> Any:
    """An attribute defined in the method's own class, not inherited: a subclass of LoRA must not be titled LoRA."""
    try:
        return vars(lookup(method)[0]).get(attribute) if method.isidentifier() else None
    except KeyError:
        return None


def task_title(evaluation: str) -> str:
    return TASK_TITLES.get(evaluation, TASK_TITLES.get(evaluation.split("/", 1)[-1], evaluation))


def model_title(model: str) -> str:
    return MODEL_TITLES.get(model, model)
