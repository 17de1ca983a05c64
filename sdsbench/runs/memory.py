"""GPU memory that a run's training step needs, counted for its own model, method, optimizer and batch.

The training code itself runs on meta tensors (training/step_memory.py), so the count includes whatever the method, task
and model allocate. Counts are cached, in memory and in the machine's cache folder, under a key of all inputs including
the code. From them, train.micro_tokens=auto chooses how a step is split into passes.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdsbench.core.disk_cache import cached
from sdsbench.core.hashing import sha256_of
from sdsbench.core.lazy import torch
from sdsbench.core.package import PACKAGE
from sdsbench.core.source_hash import hash_of
from sdsbench.methods import base as methods
from sdsbench.models.architecture import hashable
from sdsbench.runs.configuration.combinations import known_architecture
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.origin import code_hashes
from sdsbench.tasks import base as tasks

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.training.causal import CausalObjective
    from sdsbench.training.loop import Training
    from sdsbench.training.state import TrainState


RESERVE = 1.5e9  # bytes for the CUDA context and fragmentation
WORKSPACE = 2**26  # bytes of cuBLAS's workspace on an H200; less on older cards
UNSPLIT = 1.01  # torch's allocator wastes up to 1 MiB at the end of large blocks: 0.02 to 0.6 % in docs/speed.md
USABLE = 0.92  # share of a card's memory that estimates may use
CPU_TOKENS = 1024
"""Tokens of a pass on a CPU: fewer are slower, more only take memory (docs/speed.md)."""
GPU_TOKENS = 16_384
"""Largest number of tokens in a pass on a GPU, even if more would fit."""


def micro_tokens(config: RunConfig, longest: int, device: torch.device, dtype: str, runs: int = 1) -> int | None:
    """Largest number of tokens in a pass of `runs` runs side by side; None: no limit. `longest`: tokens of an example.

    On a GPU: the largest power of two, up to GPU_TOKENS, whose counted memory fits the device.
    """
    asked = config.train.micro_tokens
    if config.train.optimizer == "adamw8bit":
        return None  # applies each gradient at once, so a step must be a single pass
    if asked != "auto":
        return int(asked)
    if device.type != "cuda":
        return CPU_TOKENS
    return tokens_that_fit(config, longest, torch.cuda.get_device_properties(device).total_memory, dtype, runs)


def tokens_that_fit(config: RunConfig, longest: int, device_bytes: float, dtype: str, runs: int = 1) -> int:
    """Number of tokens in a pass that fits a device of that size; at least one example of each run.

    GPU_TOKENS if memory cannot be counted: training splits a pass that does not fit.
    """
    budget, least = GPU_TOKENS, longest * runs
    while budget > least:
        rows = Batch((longest,) * max(1, budget // least), 1.0)
        needed = training_bytes(config, rows, dtype, runs)
        if needed is None or fits(needed, device_bytes):
            return budget
        budget //= 2
    return least


def allocated_bytes(live: float) -> float:
    """Bytes that torch's allocator reports on a GPU at the peak of a step whose tensors take `live` bytes."""
    return live * UNSPLIT + WORKSPACE


def needed_bytes(live: float) -> float:
    """Bytes of GPU memory for a step whose tensors take `live` bytes, including CUDA context and fragmentation."""
    return allocated_bytes(live) + RESERVE


def fits(live: float, device_bytes: float) -> bool:
    """Whether a step whose tensors take `live` bytes fits a device of `device_bytes`."""
    return needed_bytes(live) <= device_bytes * USABLE


@dataclass(frozen=True)
class Batch:
    """The examples of a pass: their lengths in tokens (or image patches), and the share of these that carry loss."""

    lengths: tuple[int, ...]
    targets: float


def training_bytes(config: RunConfig, batch: Batch, dtype: str, runs: int = 1) -> int | None:
    """Peak bytes of live tensors in a step of `runs` runs side by side, each on `batch`, computed in `dtype`.

    None if the model's architecture is unknown before download, or if the step depends on the values of weights, which
    meta tensors lack (peft's SHiRA draws a mask from them).
    """
    known = known_architecture(config.model)
    if known is None:
        return None
    decides = {
        "facts": hashable(known.config_json),
        "family": config.model.family,
        "dtype": dtype,
        "method": config.method.model_dump(),
        "train": {key: getattr(config.train, key) for key in ("optimizer", "weight_decay", "recomputes")},
        "labels": labels_of(config),
        "lengths": batch.lengths,
        "targets": batch.targets,
        "runs": runs,
        "code": [code_hashes(config).get(part) for part in ("core", "method", "task")],
        "counting": hash_of({name: PACKAGE / "training" / f"{name}.py" for name in _COUNTING}),
        "packages": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    try:
        return _cached_count(sha256_of(decides), lambda: _count(config, known.config_json, batch, dtype, runs))
    except RuntimeError:  # torch's error for operations that meta tensors do not support
        return None


_COUNTED: dict[str, int] = {}
_FILE = "bytes.json"
_COUNTING = ("meta_device", "saved_bytes", "step_memory")  # modules that count memory, in addition to the training code


def _cached_count(name: str, count: Callable[[], int]) -> int:
    """The count stored under `name` in this process or the cache folder; else call `count` and store its result."""
    if name not in _COUNTED:

        def build(folder: Path) -> None:
            (folder / _FILE).write_text(json.dumps(count()))

        _COUNTED[name] = json.loads((cached("memory", name, name, build) / _FILE).read_text())
    return _COUNTED[name]


def labels_of(config: RunConfig) -> int | None:
    return tasks.build(config.task).num_labels


def _count(config: RunConfig, config_json: Mapping[str, Any], batch: Batch, dtype: str, runs: int) -> int:
    from transformers import AutoConfig

    from sdsbench.models.load import without_weights
    from sdsbench.training.side_by_side import Member, with_shared_weights
    from sdsbench.training.step_memory import CountedStep, joint_step_of, peak_bytes, step_of

    def step_at(depth: int) -> CountedStep:
        base = without_weights(
            config.model.family, config_json, getattr(torch, dtype), labels_of(config), depth
        ).train()
        if runs == 1:
            return step_of(*assembled(config, base, batch))
        members: list[Member] = []
        rows: Sequence[Any] = []
        for _ in range(runs):
            training, state, rows = assembled(config, with_shared_weights(base), batch)
            members.append(Member(training, state))
        return joint_step_of(base, members, rows)

    kinds = getattr(AutoConfig.for_model(**config_json), "layer_types", None)
    return peak_bytes(step_at, config_json["num_hidden_layers"], kinds)


def assembled(config: RunConfig, model: Any, batch: Batch) -> tuple[Training, TrainState, Sequence[Any]]:
    """(training loop, state, examples of the pass) of one run in the middle of its training, on the model's device."""
    from sdsbench.models.load import LoadedModel
    from sdsbench.runs.families import family_of
    from sdsbench.training.assemble import assemble
    from sdsbench.training.causal import CausalObjective
    from sdsbench.training.step_memory import optimizer_in_memory

    task, method = tasks.build(config.task), methods.build(config.method)
    loaded = LoadedModel(model, _Padding(), None, Path())  # type: ignore[arg-type]  # no weights, so none to describe
    family, rows = family_of(task, loaded, config), _ROWS[task.kind](model.config, batch)
    if isinstance(family, CausalObjective):
        family.padded = not _packs(family, model, rows)
    training, state, _ = assemble(
        model, method, family, rows, config.train, config.seeds, model.device, optimizer_in_memory
    )
    method.skip_warmup()
    return training, state, rows


def _packs(family: CausalObjective, model: Any, rows: Sequence[Any]) -> bool:
    """Whether the run would use packed rows: the model supports them, and a small one keeps its own loss with them."""
    from sdsbench.training.meta_device import as_on_cuda

    try:
        with torch.no_grad(), as_on_cuda():
            family.losses(model, [rows[:1]], model.device)
    except Exception:  # models that do not support packing raise errors of many types
        return False
    return not _small_model_needs_padding(model.config.to_dict())


_SMALL = {
    ("hidden_size", "n_embd", "d_model"): 32, ("intermediate_size", "n_inner", "ffn_hidden_size"): 48,
    ("num_hidden_layers", "n_layer", "num_layers"): 1, ("num_attention_heads", "n_head"): 4,
    ("num_key_value_heads",): 2, ("head_dim",): 8, ("rotary_dim",): 8, ("vocab_size",): 64,
    ("num_local_experts", "num_experts"): 4,
}  # fmt: skip
"""Sizes of a model small enough to run, under the names that architectures use."""


def _small_model_needs_padding(config_json: Mapping[str, Any]) -> bool:
    """Whether a small random model with these settings needs padded batches (training/own_loss.py).

    Scaled logits, ALiBi and the like do not depend on sizes, so the answer holds for the full model. False if no such
    model can be built.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from sdsbench.models.quiet import quiet
    from sdsbench.training.causal import CausalObjective
    from sdsbench.training.own_loss import needs_padding
    from sdsbench.training.tokens import EncodedText

    sizes = {name: size for names, size in _SMALL.items() for name in names if config_json.get(name)}
    layers = {"layer_types": config_json["layer_types"][:1]} if config_json.get("layer_types") else {}
    special = {name: 0 for name in config_json if name.endswith("_token_id")}
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), quiet():
            config = AutoConfig.for_model(**{**config_json, **sizes, **layers, **special, "dtype": "float32"})
            model = AutoModelForCausalLM.from_config(config).float().eval()
            for weight in model.parameters():  # large values make differences visible
                drawn = torch.randn(weight.shape, generator=generator)
                weight.copy_(0.15 * drawn if weight.ndim > 1 else weight + 0.3 * drawn)
        texts = [torch.randint(64, (length,), generator=generator).tolist() for length in (24, 9)]
        examples = [EncodedText(tuple(text), 2) for text in texts]
        with quiet():
            return needs_padding(model, CausalObjective(None, None, 32).losses, examples, torch.device("cpu"))
    except Exception:  # these sizes are invalid for the architecture, which may raise any error
        return False


class _Padding:
    """Replaces the tokenizer, of which a batch of sentences only uses `pad`."""

    def pad(self, sentences: Sequence[Mapping[str, Sequence[int]]], return_tensors: str) -> dict[str, Tensor]:
        width = max(len(ids) for sentence in sentences for ids in sentence.values())
        return {name: torch.ones(len(sentences), width, dtype=torch.long) for name in sentences[0]}


def _texts(_: Any, batch: Batch) -> list[Any]:
    from sdsbench.training.causal import EncodedText

    return [EncodedText((0,) * length, length - math.ceil(batch.targets * length)) for length in batch.lengths]


def _sentences(model_config: Any, batch: Batch) -> list[Any]:
    from sdsbench.tasks.sentences import EncodedSentence

    names = [
        "input_ids",
        "attention_mask",
        *(["token_type_ids"] if getattr(model_config, "type_vocab_size", 0) > 1 else []),
    ]
    return [EncodedSentence(dict.fromkeys(names, [0] * length), 0.0) for length in batch.lengths]


def _images(model_config: Any, batch: Batch) -> list[Any]:
    from sdsbench.tasks.images import EncodedImage

    side = model_config.image_size
    pixels = np.broadcast_to(np.zeros((), np.float32), (model_config.num_channels, side, side))
    return [EncodedImage(pixels, 0.0) for _ in batch.lengths]


_ROWS = {"text": _texts, "classification": _sentences, "vision": _images}
