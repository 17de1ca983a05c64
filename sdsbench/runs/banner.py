"""The settings of a run in lines for the user, printed in stages: before torch is imported, after loading, at start."""

from __future__ import annotations

import time
from itertools import starmap
from typing import TYPE_CHECKING

from sdsbench.core.clock import clock
from sdsbench.core.console import labelled
from sdsbench.core.lazy import torch
from sdsbench.core.processor import Load, shared_text, usable_cores
from sdsbench.data import catalogue
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import generated, resolve_source

if TYPE_CHECKING:
    from sdsbench.core.record import Lengths
    from sdsbench.runs.prepare import Loaded
    from sdsbench.training.precision import Device

MANY_CUT = 0.02  # share of truncated rows above which the banner warns
_SETTINGS = ("rank", "alpha", "dropout", "type", "options")


def announcement(config: RunConfig) -> str:
    """Summary of the configuration; does not import torch, so that the user sees it within a second.

    Raises Unavailable if no source has the data.
    """
    config, reason = resolve_source(config)
    train, method = config.train, config.method
    settings = ", ".join(f"{key} {getattr(method, key)}" for key in _SETTINGS if hasattr(method, key))
    source: str = config.data.source
    if source == "embedded" and generated(config) not in reason:
        source = f"embedded ({generated(config)})"
    return _lines(
        {
            "run": run_id(config),
            "method": f"{method.name}{' (' + settings + ')' if settings else ''} on {config.model.name}",
            "task": f"{config.task.name}, protocol {config.protocol.name}, seed {config.seed}",
            "data": f"{source}; {reason}; trained on {catalogue.described(config.task.train_set)}",
            "train": f"{train.batch_size} examples a step, {train.optimizer} lr {train.lr:g} {train.schedule}",
        }
    )


def banner(config: RunConfig, loaded: Loaded, steps: int, started: Load | None) -> str:
    """Summary of data, weights and device after loading; `started` is the load of the CPU cores when the run began."""
    device, rows, weights = loaded.device, loaded.data.training, loaded.model.weights
    parameters = sum(parameter.numel() for parameter in loaded.model.model.parameters())
    tokens = sum(example.length for example in loaded.examples) / len(loaded.examples)
    seconds = expected_seconds(parameters, tokens * config.train.batch_size, steps, device)
    shared = shared_text(started)
    return _lines(
        {
            "model": f"{config.model.name} from {weights.source}, {parameters / 1e6:.1f} M parameters",
            "rows": f"{len(rows)} of {catalogue.described(rows.dataset)}, fingerprint {rows.fingerprint[:12]}",
            **({"start": f"from what run {config.start_from} trained"} if config.start_from else {}),
            **_held_out(loaded),
            **_lengths(loaded.lengths()),
            "compute": f"{device.device_name}, {device.threads} threads of {usable_cores()} cores, "
            f"{str(device.dtype).removeprefix('torch.')}: {device.dtype_reason}",
            **_attention(loaded),
            "expected": f"{steps} steps, about {clock(seconds)} of training (from a matrix product measured now), "
            "then evaluation",
            **({"beside": shared} if shared else {}),
        }
    )


def _attention(loaded: Loaded) -> dict[str, str]:
    """On a GPU without a kernel for packed sequences: a line with the reason why attention runs one by one."""
    from sdsbench.training.attention import reason_against_varlen
    from sdsbench.training.dropout import attention_dropout

    device, model = loaded.device, loaded.model.model.config
    if device.device.type != "cuda" or not loaded.family.packed:
        return {}
    head_size = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    capped = getattr(model, "attn_logit_softcapping", None)
    reason = reason_against_varlen(device.device, device.dtype, head_size, capped, attention_dropout(model))
    return {} if reason is None else {"attention": f"a call for each sequence (slower, the same numbers): {reason}"}


def _held_out(loaded: Loaded) -> dict[str, str]:
    """Number of held-out rows that select the best step; empty unless train.best_every is set."""
    return {"held out": f"{len(loaded.held_out)} rows: the best step by their loss"} if loaded.held_out else {}


def _lengths(lengths: Lengths | None) -> dict[str, str]:
    """Number of rows truncated at train.max_length, if any; a warning if their share exceeds MANY_CUT."""
    if lengths is None or not lengths.note:
        return {}
    warning = "WARNING: " if lengths.share > MANY_CUT else ""
    return {"lengths": f"{warning}{lengths.note}; the end of a row goes, its end-of-sequence token too"}


def trainable(parameters: int, micro_tokens: int | None, whole_steps: str | None) -> str:
    """Trainable parameters, and the largest number of tokens in a pass, or why every step must be one pass."""
    cut = "each step in one pass" if micro_tokens is None else f"in passes of at most {micro_tokens:,} tokens"
    if whole_steps:
        cut = f"each step in one pass ({whole_steps})"
    return _lines({"trains": f"{parameters:,} parameters, {cut}"})


def _lines(lines: dict[str, str]) -> str:
    return "\n".join(starmap(labelled, lines.items()))


def expected_seconds(parameters: int, tokens_per_step: float, steps: int, device: Device) -> float:
    """Estimated training time: 6 FLOPs per parameter and token, at half the speed of a 1024^3 matrix product here."""
    size = 1024
    left, right = (torch.ones(size, size, device=device.device, dtype=device.dtype) for _ in range(2))
    left @ right
    started = time.perf_counter()
    float((left @ right)[0, 0])
    speed = 2 * size**3 / (time.perf_counter() - started)
    return 6 * parameters * tokens_per_step * steps / (0.5 * speed)
