"""Compare a run's settings with those that its protocol's paper reports, key by key.

`protocol.paper` quotes the paper as text (`epochs, batch: 1, 32`). Names of known settings are compared with the run's
values; entries that are not a single value (`CoLA 30, SST-2 15`) are shown without a comparison.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from sdsbench.core.leaves import leaves
from sdsbench.core.texts import text
from sdsbench.runs.configuration.schema import RunConfig

Line = tuple[str, str, str, str]  # key, ours, paper, equal (yes, NO, or empty where they cannot be compared)

SETTINGS: dict[str, Callable[[RunConfig], Any]] = {
    "epochs": lambda c: c.train.epochs,
    "batch": lambda c: c.train.batch_size,
    "max length": lambda c: c.train.max_length,
    "length": lambda c: c.train.max_length,
    "dropout": lambda c: getattr(c.method, "dropout", None),
    "weight decay": lambda c: c.train.weight_decay,
    "learning rate": lambda c: c.train.lr,
    "schedule": lambda c: c.train.schedule,
    "warm-up": lambda c: c.train.warmup_ratio,
    "clip": lambda c: c.train.clip_norm,
    "precision": lambda c: c.dtype,
    "loss": lambda c: getattr(c.task, "loss_on", None),
    "targets": lambda c: c.method.targets,
}
_WORDS = {
    "bf16": "bfloat16", "fp32": "float32", "none": "null", "response only": "response", "whole sequence": "sequence",
    "q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj", "gate": "gate_proj", "up": "up_proj",
    "down": "down_proj",
}  # fmt: skip


def comparison_lines(config: RunConfig) -> Iterator[Line]:
    """One line for each setting in `protocol.paper`; entries that list several settings are split."""
    for key, value in leaves(config.protocol.paper):
        keys, values = re.split(r", | x ", key), re.split(r", | x ", re.sub(r" \(.*?\)", "", text(value)))
        if key == "targets" or len(keys) != len(values) or not any(name in SETTINGS for name in keys):
            keys, values = [key], [text(value)]
        for name, printed in zip(keys, values, strict=True):
            yield _line(name, printed, config)


def _line(name: str, printed: str, config: RunConfig) -> Line:
    if name not in SETTINGS:
        return name, "", printed, ""
    ours: Any = SETTINGS[name](config)
    if isinstance(ours, list):
        wanted = {_WORDS.get(word, word) for word in re.split(r"[,\s]+", printed)} - {"and"}
        return name, text(ours), printed, "yes" if wanted == set(ours) else "NO"
    number = re.fullmatch(r"([-+.e\d]+)( %)?", printed)
    if isinstance(ours, int | float) and number:
        wanted_number = float(number[1]) * (0.01 if number[2] else 1)
        return name, text(ours), printed, "yes" if abs(float(ours) - wanted_number) < 1e-12 else "NO"
    if isinstance(ours, int | float) or " " in _WORDS.get(printed, printed):
        return name, text(ours), printed, ""  # several values, or words
    return name, text(ours), printed, "yes" if text(ours) == _WORDS.get(printed, printed) else "NO"
