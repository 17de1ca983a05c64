"""How methods, models and tasks are written in tables."""

from __future__ import annotations

METHOD_TITLES = {
    "full_ft": "Full FT",
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "pissa": "PiSSA",
    "dora": "DoRA",
    "lora_pro": "LoRA-Pro",
    "lora_xs": "LoRA-XS",
    "lora_sb": "LoRA-SB",
    "sds_lora": "SDS-LoRA",
    "lora_plus": "LoRA+",
    "lora_ga": "LoRA-GA",
    "preconditioned_lora": "Preconditioned LoRA",
    "altlora": "AltLoRA",
    "milora": "MiLoRA",
    "olora": "OLoRA",
}
MODEL_TITLES = {
    "mistral_7b": "Mistral-7B",
    "gemma2_9b": "Gemma-2 9B",
    "gemma_2b": "Gemma-2B",
    "llama3_8b": "Llama-3 8B",
    "llama3.2_3b": "Llama-3.2 3B",
    "roberta_large": "RoBERTa-large",
    "vit_base": "ViT-Base",
    "vit_large": "ViT-Large",
    "smollm2_135m": "SmolLM2-135M",
    "minilm": "MiniLM-L6",
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
    "cifar100": "CIFAR-100",
    "resisc45": "RESISC45",
    "food101": "Food-101",
    "dtd": "DTD",
    "cub200": "CUB-200",
    "cars": "Cars",
    "sun397": "SUN397",
}


def method_title(method: str, rank: int | None) -> str:
    """`LoRA, r 32`; a method without a rank has none."""
    name = METHOD_TITLES.get(method, method)
    return name if rank is None else f"{name}, r {rank}"


def task_title(evaluation: str) -> str:
    return TASK_TITLES.get(evaluation, TASK_TITLES.get(evaluation.split("/", 1)[-1], evaluation))


def model_title(model: str) -> str:
    return MODEL_TITLES.get(model, model)
