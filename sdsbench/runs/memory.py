"""What a run's training step needs on a GPU: counted for its very model, method, optimizer and batch.

The step is the one that training makes, on meta tensors (training/step_memory.py), so that whatever a method, a task or
a model does is in the count. A count is remembered in memory and in the machine's cache folder under everything that
decides it, the code included.

From it follows how a run cuts its steps into passes: train.micro_tokens=auto.
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
from sdsbench.runs.configuration.combinations import known_architecture
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.origin import code_hashes
from sdsbench.tasks import base as tasks

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.training.causal import CausalObjective
    from sdsbench.training.loop import Training
    from sdsbench.training.state import TrainState


RESERVE = 1.5e9  # CUDA context and fragmentation, bytes
WORKSPACE = 2**26  # bytes that cuBLAS holds on an H200; on older cards it is less
UNSPLIT = 1.01  # torch's allocator leaves up to 1 MiB at the end of large blocks: 0.02 to 0.6 % in docs/speed.md
USABLE = 0.92  # share of a card's memory that a run may plan with
CPU_TOKENS = 1024
"""Tokens of a pass on a CPU (docs/speed.md): less is slower, and more only takes more memory."""
GPU_TOKENS = 16_384
"""The most tokens of a pass on a GPU, where more of them have room."""


def micro_tokens(config: RunConfig, longest: int, device: torch.device, dtype: str, runs: int = 1) -> int | None:
    """The most tokens of a pass of `runs` runs side by side, whose longest example has so many; None: no limit.

    On a GPU the largest power of two, up to GPU_TOKENS, whose counted memory the device holds.
    """
    asked = config.train.micro_tokens
    if config.train.optimizer == "adamw8bit":
        return None  # uses gradients up as they are made, so that passes cannot be added up
    if asked != "auto":
        return int(asked)
    if device.type != "cuda":
        return CPU_TOKENS
    return tokens_that_fit(config, longest, torch.cuda.get_device_properties(device).total_memory, dtype, runs)


def tokens_that_fit(config: RunConfig, longest: int, device_bytes: float, dtype: str, runs: int = 1) -> int:
    """The tokens of a pass for which a device of that size has room; at least one example of each run.

    Where nothing can be counted, GPU_TOKENS: a pass that does not fit is made again in smaller ones.
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
    """What torch's allocator hands out on a GPU at the peak of a step whose tensors take `live` bytes."""
    return live * UNSPLIT + WORKSPACE


def needed_bytes(live: float) -> float:
    """The memory of a GPU that a step takes whose tensors take `live` bytes."""
    return allocated_bytes(live) + RESERVE


def fits(live: float, device_bytes: float) -> bool:
    """Whether a device of that size has room for such a step."""
    return needed_bytes(live) <= device_bytes * USABLE


@dataclass(frozen=True)
class Batch:
    """The examples of a pass: rows of so many tokens (patches of images), of which the share `targets` carries loss."""

    lengths: tuple[int, ...]
    targets: float


def training_bytes(config: RunConfig, batch: Batch, dtype: str, runs: int = 1) -> int | None:
    """The peak of live bytes in a step of `runs` runs side by side, each on `batch`, which computes in `dtype`.

    None where the model's architecture is not known before download, or where the step cannot be made without values
    (peft's SHiRA draws a mask from those of a weight).
    """
    known = known_architecture(config.model)
    if known is None:
        return None
    decides = {
        "facts": known.facts,
        "family": config.model.family,
        "dtype": dtype,
        "method": config.method.model_dump(),
        "train": {key: getattr(config.train, key) for key in ("optimizer", "weight_decay", "recomputes")},
        "labels": _labels(config),
        "lengths": batch.lengths,
        "targets": batch.targets,
        "runs": runs,
        "code": [code_hashes(config).get(part) for part in ("core", "method", "task")],
        "counting": hash_of({name: PACKAGE / "training" / f"{name}.py" for name in _COUNTING}),
        "packages": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    try:
        return _remembered(sha256_of(decides), lambda: _count(config, known.facts, batch, dtype, runs))
    except RuntimeError:  # what torch raises where meta tensors do not do; NotImplementedError is one
        return None


_COUNTED: dict[str, int] = {}
_FILE = "bytes.json"
_COUNTING = ("meta_device", "saved_bytes", "step_memory")  # modules that count, beside those that train


def _remembered(name: str, count: Callable[[], int]) -> int:
    """The count of that name, made only where neither this process nor the machine has it."""
    if name not in _COUNTED:

        def build(folder: Path) -> None:
            (folder / _FILE).write_text(json.dumps(count()))

        _COUNTED[name] = json.loads((cached("memory", name, name, build) / _FILE).read_text())
    return _COUNTED[name]


def _labels(config: RunConfig) -> int | None:
    return tasks.build(config.task).num_labels


def _count(config: RunConfig, facts: Mapping[str, Any], batch: Batch, dtype: str, runs: int) -> int:
    from transformers import AutoConfig

    from sdsbench.models.load import without_weights
    from sdsbench.training.side_by_side import Member, with_shared_weights
    from sdsbench.training.step_memory import CountedStep, joint_step_of, peak_bytes, step_of

    def step_at(depth: int) -> CountedStep:
        base = without_weights(config.model.family, facts, getattr(torch, dtype), _labels(config), depth).train()
        if runs == 1:
            return step_of(*_assembled(config, base, batch))
        members: list[Member] = []
        rows: Sequence[Any] = []
        for _ in range(runs):
            training, state, rows = _assembled(config, with_shared_weights(base), batch)
            members.append(Member(training, state))
        return joint_step_of(base, members, rows)

    kinds = getattr(AutoConfig.for_model(**facts), "layer_types", None)
    return peak_bytes(step_at, facts["num_hidden_layers"], kinds)


def _assembled(config: RunConfig, model: Any, batch: Batch) -> tuple[Training, TrainState, Sequence[Any]]:
    """The loop and the state of one run as most of its training has them, and the rows of the pass."""
    from sdsbench.models.load import LoadedModel
    from sdsbench.runs.families import family_of
    from sdsbench.training.assemble import assemble
    from sdsbench.training.causal import CausalObjective
    from sdsbench.training.meta_device import META
    from sdsbench.training.step_memory import optimizer_in_memory

    task, method = tasks.build(config.task), methods.build(config.method)
    loaded = LoadedModel(model, _Padding(), None, Path())  # type: ignore[arg-type]  # no weights, so none to describe
    family, rows = family_of(task, loaded, config), _ROWS[task.kind](model.config, batch)
    if isinstance(family, CausalObjective):
        family.padded = not _packs(family, model, rows)
    training, state, _ = assemble(model, method, family, rows, config.train, config.seeds, META, optimizer_in_memory)
    method.skip_warmup()
    return training, state, rows


def _packs(family: CausalObjective, model: Any, rows: Sequence[Any]) -> bool:
    """Whether the model is computed on packed rows: it can be, and a small model of its kind has its own loss so."""
    from sdsbench.training.meta_device import META, as_on_cuda

    try:
        with torch.no_grad(), as_on_cuda():
            family.losses(model, [rows[:1]], META)
    except Exception:  # an architecture that lacks what packing needs raises whatever it likes
        return False
    return not _small_one_pads(model.config.to_dict())


_SMALL = {
    ("hidden_size", "n_embd", "d_model"): 32, ("intermediate_size", "n_inner", "ffn_hidden_size"): 48,
    ("num_hidden_layers", "n_layer", "num_layers"): 1, ("num_attention_heads", "n_head"): 4,
    ("num_key_value_heads",): 2, ("head_dim",): 8, ("rotary_dim",): 8, ("vocab_size",): 64,
    ("num_local_experts", "num_experts"): 4,
}  # fmt: skip
"""Sizes of a model that is small enough to be computed, by what architectures call them."""


def _small_one_pads(facts: Mapping[str, Any]) -> bool:
    """What a run finds out of the model itself (training/own_loss.py), of a random one with its other settings: scaled
    logits, ALiBi and the like do not depend on sizes. Where no such model can be made, False."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from sdsbench.models.quiet import quiet
    from sdsbench.training.causal import CausalObjective
    from sdsbench.training.own_loss import needs_padding
    from sdsbench.training.tokens import EncodedText

    sizes = {name: size for names, size in _SMALL.items() for name in names if facts.get(name)}
    layers = {"layer_types": facts["layer_types"][:1]} if facts.get("layer_types") else {}
    special = {name: 0 for name in facts if name.endswith("_token_id")}
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), quiet():
            config = AutoConfig.for_model(**{**facts, **sizes, **layers, **special, "dtype": "float32"})
            model = AutoModelForCausalLM.from_config(config).float().eval()
            for weight in model.parameters():  # values large enough that differences show
                drawn = torch.randn(weight.shape, generator=generator)
                weight.copy_(0.15 * drawn if weight.ndim > 1 else weight + 0.3 * drawn)
        texts = [torch.randint(64, (length,), generator=generator).tolist() for length in (24, 9)]
        examples = [EncodedText(tuple(text), 2) for text in texts]
        with quiet():
            return needs_padding(model, CausalObjective(None, None, 32).losses, examples, torch.device("cpu"))
    except Exception:  # sizes that do not go together in this architecture, which then raises whatever it likes
        return False


class _Padding:
    """In place of a tokenizer: of that a batch of sentences needs the padding alone."""

    def pad(self, sentences: Sequence[Mapping[str, Sequence[int]]], return_tensors: str) -> dict[str, Tensor]:
        width = max(len(ids) for sentence in sentences for ids in sentence.values())
        return {name: torch.ones(len(sentences), width, dtype=torch.long) for name in sentences[0]}


def _texts(_: Any, batch: Batch) -> list[Any]:
    from sdsbench.training.causal import EncodedText

    return [EncodedText((0,) * length, length - math.ceil(batch.targets * length)) for length in batch.lengths]


def _sentences(facts: Any, batch: Batch) -> list[Any]:
    from sdsbench.tasks.sentences import EncodedSentence

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if getattr(facts, "type_vocab_size", 0) > 1 else [])]
    return [EncodedSentence(dict.fromkeys(names, [0] * length), 0.0) for length in batch.lengths]


def _images(facts: Any, batch: Batch) -> list[Any]:
    from sdsbench.tasks.images import EncodedImage

    side = facts.image_size
    pixels = np.broadcast_to(np.zeros((), np.float32), (facts.num_channels, side, side))
    return [EncodedImage(pixels, 0.0) for _ in batch.lengths]


_ROWS = {"text": _texts, "classification": _sentences, "vision": _images}
