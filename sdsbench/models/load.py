"""Load a model's weights and tokenizer into memory, with the fingerprint that records hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import Weights
from sdsbench.core.texts import some_of
from sdsbench.models import model_folder
from sdsbench.models.conv1d import with_linear_
from sdsbench.models.head import head_parameters
from sdsbench.models.image_size import set_image_size_
from sdsbench.models.location import described, folder_of
from sdsbench.models.model_config import CLASSES, ModelConfig
from sdsbench.models.quiet import quiet


@dataclass
class LoadedModel:
    """A pretrained model, its tokenizer (None for vision), and the identity and folder of its files."""

    model: Any
    tokenizer: Any
    weights: Weights
    folder: Path


def load(
    config: ModelConfig, dtype: torch.dtype, num_labels: int | None = None, device: str | torch.device = "cpu"
) -> LoadedModel:
    """Load the model in `dtype` on the device, with a new head if `num_labels` is given.

    Every weight is read from the files, except a new head's, which the caller must initialise (head.py). Only the end
    tokens of generation_config.json are used; the run's configuration sets how answers are generated.
    Raises Unavailable, in one line, for anything that is wrong with the files.
    """
    with quiet():
        folder, revision = folder_of(config)
        with model_folder.reading(f"model={config.name}: {folder.name}"):
            model = _read(config, folder, dtype, num_labels)
            tokenizer = None if config.family == "vision" else _tokenizer(config, folder, model)
        weights = described(config, folder, revision)
    model.train(False).to(device)
    return LoadedModel(model, tokenizer, weights, folder)


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's tokenizer without its weights. Raises Unavailable for anything that is wrong with the files."""
    with quiet():
        folder, _ = folder_of(config)
        with model_folder.reading(f"model={config.name}: {folder.name}"):
            return _read_tokenizer(folder)


def _read(config: ModelConfig, folder: Path, dtype: torch.dtype, num_labels: int | None) -> Any:
    """Read the model from a folder; checks the sizes that its files declare before allocating memory for them."""
    config_json = model_folder.config_of(folder)
    held = model_folder.check_weights(model_folder.weight_files(folder))
    check_size(
        f"{folder.name}/{model_folder.CONFIG}", without_weights(config.family, config_json, dtype, num_labels), held
    )
    extra: dict[str, Any] = {} if num_labels is None else {"num_labels": num_labels}
    with torch.random.fork_rng(devices=[]):
        model, found = _class_of(config.family).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True,
            ignore_mismatched_sizes=True, output_loading_info=True, **extra,
        )  # fmt: skip
    _check_complete(f"model={config.name}: {folder.name}", model, found, new_head=num_labels is not None)
    with_linear_(model)
    if config.resampled_size is not None:
        set_image_size_(model, config.resampled_size)
    if model.can_generate():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    return model


def check_size(what: str, model: Any, held: int) -> None:
    """Raises Unavailable if a model (on the meta device) has far more parameters than its files hold."""
    declared = sum(weight.numel() for weight in model.parameters())
    if declared > _SLACK * held:
        raise Unavailable(f"{what} declares {declared:,} weights, the files hold {held:,}")


_SLACK = 2  # tensors that files share or leave out (tied embeddings, a new head) are few


def _check_complete(what: str, model: Any, found: Mapping[str, Any], new_head: bool) -> None:
    """Raises Unavailable, naming the tensors, unless every weight came from the files and the files hold nothing more.

    If the task adds a new head, the files need not contain one, and tensors of other heads or poolers are ignored.
    """
    head = set(head_parameters(model)) if new_head else set()
    problems = {
        "missing": sorted(set(found["missing_keys"]) - head),
        "of another shape": sorted(
            f"{name} ({list(held)}, the configuration says {list(wanted)})"
            for name, held, wanted in found["mismatched_keys"]
            if name not in head
        ),
        "unexpected": sorted(
            name for name in found["unexpected_keys"] if not (new_head and _beside_the_base(name, model))
        ),
        "not understood": sorted(map(str, found["error_msgs"])),
    }
    said = [f"{kind}: {some_of(names, 6)}" for kind, names in problems.items() if names]
    if said:
        raise Unavailable(f"{what}: the weights are not those of {model_folder.CONFIG}. {'; '.join(said)}")


def _beside_the_base(name: str, model: Any) -> bool:
    """Whether a tensor of the files belongs to a head or pooler, that is, to no block and no module of the base
    model."""
    parts = name.split(".")
    if "pooler" in parts:
        return True
    base = {model.base_model_prefix, *(child for child, _ in model.base_model.named_children())}
    return parts[0] not in base and not any(part.isdigit() for part in parts)


def _tokenizer(config: ModelConfig, folder: Path, model: Any) -> Any:
    """The tokenizer with end-of-sequence and padding tokens. Raises Unavailable if the model has no such tokens."""
    tokenizer = _read_tokenizer(folder)
    if config.family == "decoder" and tokenizer.eos_token_id is None:
        raise Unavailable(f"model={config.name}: {folder.name}: the tokenizer has no eos_token, which ends an answer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = model.get_input_embeddings().weight.shape[0]
    for kind in ("eos", "pad", "bos"):
        number = getattr(tokenizer, f"{kind}_token_id")
        if number is not None and number >= rows:
            raise Unavailable(
                f"model={config.name}: {folder.name}: {kind}_token has the number {number}; accepted: below {rows}, "
                "the rows of the embedding"
            )
    return tokenizer


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    model_folder.loaded_files(folder)  # none of which is a pipe, which would be waited for
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    tokenizer("A text.")  # a class that does not fit the files may load and fail at its first text
    return tokenizer


def _class_of(family: str) -> Any:
    import transformers

    return getattr(transformers, CLASSES[family])


def without_weights(
    family: str,
    config_json: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    num_labels: int | None = None,
    depth: int | None = None,
) -> Any:
    """The model that a config.json describes, on the meta device (shapes only). With `depth`, only its first blocks."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _from_config_json(family, config_json, dtype, num_labels, depth)


def with_random_weights(family: str, config_json: Mapping[str, Any], num_labels: int | None = None) -> Any:
    """The model that a config.json describes, on the CPU in float32; its random weights are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _from_config_json(family, config_json, torch.float32, num_labels, None)


def _from_config_json(
    family: str, config_json: Mapping[str, Any], dtype: torch.dtype, num_labels: int | None, depth: int | None
) -> Any:
    from transformers import AutoConfig

    kept = dict(config_json)
    if num_labels is not None:  # a new head: the names of the old one's labels would contradict it
        kept = {key: value for key, value in config_json.items() if key not in ("id2label", "label2id")}
        kept["num_labels"] = num_labels
    config = AutoConfig.for_model(**kept)
    if depth is not None:
        config.num_hidden_layers = depth
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:depth]
    return with_linear_(_class_of(family).from_config(config, dtype=dtype))
