"""Detect impossible combinations of settings from names and shapes alone, without weights, torch or network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdsbench.core.errors import Problem
from sdsbench.core.spelling import nearest
from sdsbench.data import catalogue
from sdsbench.methods import base as methods
from sdsbench.methods.base import LowRankConfig
from sdsbench.methods.targets import ALL_LINEAR, matches, unmatched
from sdsbench.models import architecture, model_folder, readers
from sdsbench.models.location import packaged
from sdsbench.models.model_config import ModelConfig
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks

FAMILY_OF_KIND = {"text": "decoder", "classification": "encoder", "vision": "vision"}


def cross_problems(config: RunConfig) -> Iterator[Problem]:
    """Every problem that involves keys of two sections."""
    yield from _task_against_model(config)
    yield from _data(config)
    yield from _model_source(config.model)
    yield from _image_size(config.model)
    if config.train.activation_checkpointing and getattr(config.method, "dropout", 0.0) > 0:
        yield Problem(
            "train.activation_checkpointing",
            True,
            "false where method.dropout is above 0",
            "A block that is computed twice would draw two masks.",
        )
    if config.train.best_every is not None and methods.lookup(config.method.name)[0].trains_base:
        advice = "What trained at the best step is kept in memory beside what trains: all weights would be there twice."
        accepted = f"null with method={config.method.name}"
        yield Problem("train.best_every", config.train.best_every, accepted, advice)
    yield from _probes(config)
    own = {"text", *(evaluation.name for evaluation in tasks.build(config.task).evaluations())}
    if len(set(config.eval.also) - own) < len(config.eval.also):
        advice = f"The task scores {', '.join(sorted(own - {'text'}))} itself."
        yield Problem("eval.also", config.eval.also, "other tasks than the run's own, each once", advice)
    if config.model.family != "decoder":
        for key, value, none in (("eval.also", config.eval.also, "[]"), ("eval.text", config.eval.text, "null")):
            if value:
                accepted = f"{none} with model={config.model.name}"
                yield Problem(key, value, accepted, "Decoders alone have such second scores.")
    if config.eval.engine == "vllm":
        yield from _other_engine(config)
    if config.train.optimizer == "adamw8bit":
        yield from _weights_that_change_in_backward(config)
    shapes = layer_shapes(config.model)
    if shapes is not None:
        yield from _method_against_layers(config, shapes)


def _probes(config: RunConfig) -> Iterator[Problem]:
    method = methods.build(config.method)
    if config.probe.every is not None and not (method.wraps_layers() or method.trains_base):
        advice = "A probe looks at adapted layers and at weights that train; this method has layers of its own."
        yield Problem("probe.every", config.probe.every, f"null with method={config.method.name}", advice)


def _other_engine(config: RunConfig) -> Iterator[Problem]:
    generated = list(filter(None, map(tasks.generation_of, tasks.build(config.task).evaluations())))
    if not generated:
        accepted = f"transformers with task={config.task.name}"
        yield Problem("eval.engine", "vllm", accepted, "The task generates no answers.")
    elif any(generation.beams > 1 for generation in generated):
        accepted = f"transformers with task={config.task.name}"
        yield Problem("eval.engine", "vllm", accepted, "vLLM has no beam search.")


def _weights_that_change_in_backward(config: RunConfig) -> Iterator[Problem]:
    if not methods.lookup(config.method.name)[0].trains_base:
        accepted = f"adamw, momentum or sgd with method={config.method.name} (adamw8bit: method=full_ft)"
        yield Problem("train.optimizer", "adamw8bit", accepted, "Adapters have fp32 masters; they are small.")
    if config.probe.every is not None:
        yield Problem("probe.every", config.probe.every, "null with train.optimizer=adamw8bit", "No gradient is kept.")


@dataclass(frozen=True)
class KnownArchitecture:
    """A model's config.json, and the shapes (m, n) of its nn.Linear layers by name, without heads and poolers."""

    config_json: dict[str, Any]
    shapes: dict[str, tuple[int, int]]


def known_architecture(model: ModelConfig) -> KnownArchitecture | None:
    """The model's architecture, or None if it is unknown before download."""
    path = config_file(model)
    if path is None:
        return None
    known = _read(path, path.stat().st_mtime_ns, model.family)
    if model.resampled_size is None:
        return known
    return replace(known, config_json=known.config_json | {"image_size": model.resampled_size})


def layer_shapes(model: ModelConfig) -> dict[str, tuple[int, int]] | None:
    """(m, n) of every nn.Linear by name, or None if the architecture is unknown before download."""
    known = known_architecture(model)
    return known.shapes if known else None


def config_file(model: ModelConfig) -> Path | None:
    """Path of the model's config.json on this machine, or None if it must be downloaded first."""
    folder = Path(architecture.__file__).parent
    if model.architecture:
        path = folder / "architectures" / f"{model.architecture}.json"
    elif model.source == "package" and (inside := packaged(str(model.location))):
        path = inside / "config.json"
    elif model.source == "folder":
        path = Path(str(model.location)) / "config.json"
    else:
        return None
    return path if path.is_file() else None


_SIZES = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model", "dim"),
}  # name that cost estimates read -> its other names in some architectures


@lru_cache(maxsize=32)
def _read(path: Path, _changed: int, family: str) -> KnownArchitecture:
    config_json = (
        model_folder.config_of(path.parent) if path.name == model_folder.CONFIG else model_folder.json_of(path)
    )
    layers = architecture.linear_layers(config_json, family)
    names = [(name, other) for name, others in _SIZES.items() for other in others]
    config_json |= {name: config_json[other] for name, other in names if other in config_json}
    return KnownArchitecture(
        config_json, {name: shape for name, shape in layers.items() if matches(name, [ALL_LINEAR])}
    )


def _task_against_model(config: RunConfig) -> Iterator[Problem]:
    kind = tasks.lookup(config.task.name)[0].kind
    wanted = FAMILY_OF_KIND[kind]
    if config.model.family != wanted:
        fitting = {
            "decoder": "micro or smollm2_135m",
            "encoder": "minilm or roberta_large",
            "vision": "vit_micro or vit_base",
        }
        article = {"decoder": "a", "encoder": "an", "vision": "a"}
        yield Problem(
            "model",
            config.model.name,
            f"{article[wanted]} {wanted} model for task={config.task.name} ({kind}), such as {fitting[wanted]}",
            f"{config.model.name} is {article[config.model.family]} {config.model.family} model.",
        )


def _image_size(model: ModelConfig) -> Iterator[Problem]:
    size = model.resampled_size
    known = known_architecture(model) if size is not None else None
    patch = known.config_json.get("patch_size") if known else None
    if size is not None and isinstance(patch, int) and size % patch:
        yield Problem("model.image_size", size, f"a multiple of {patch}, the side of the model's patches")


def _model_source(model: ModelConfig) -> Iterator[Problem]:
    known = ["package", "hub", "folder", *readers.sources()]
    if model.source not in known:
        yield Problem("model.source", model.source, ", ".join(known), nearest(model.source, known))


def _data(config: RunConfig) -> Iterator[Problem]:
    if not tasks.build(config.task).members and not catalogue.known(config.task.train_set):
        yield Problem(
            "task.train_set",
            config.task.train_set,
            ", ".join(catalogue.names()),
            nearest(config.task.train_set, catalogue.names()),
        )
    elif config.data.train and not catalogue.get(config.task.train_set).own:
        accepted = f"null with task={config.task.name}"
        yield Problem("data.train", config.data.train, accepted, "Own files are read by task=pairs and task=labels.")
    if config.data.max_tokens is not None and tasks.lookup(config.task.name)[0].kind != "text":
        accepted = f"null with task={config.task.name}"
        yield Problem("data.max_tokens", config.data.max_tokens, accepted, "It counts tokens of prompt and response.")


def _method_against_layers(config: RunConfig, shapes: Mapping[str, tuple[int, int]]) -> Iterator[Problem]:
    method = config.method
    yield from unmatched(list(shapes), method.targets)
    matched = {name: shape for name, shape in shapes.items() if matches(name, method.targets)}
    if isinstance(method, LowRankConfig) and matched:
        name, (m, n) = min(matched.items(), key=lambda item: min(item[1]))
        if method.rank > min(m, n):
            accepted = f"1 to {min(m, n)} on {config.model.name}"
            yield Problem("method.rank", method.rank, accepted, f"{name} is {m} x {n}.")
