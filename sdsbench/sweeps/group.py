"""Runs of a plan that share a frozen base and train side by side in one process.

A member of a group is a run like any other: its own folder, lock, record, metrics, checkpoints and evaluation, all made
by the stages of run.py. The group adds one thing, joint training, at the one place where a run stops for it. Whatever
goes wrong with the group as a whole, its runs go on alone from their last step.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sdsbench.core.hashing import canonical_json
from sdsbench.methods.base import LowRankConfig
from sdsbench.models.load import LoadedModel
from sdsbench.models.model_config import ModelConfig
from sdsbench.runs.configuration.identity import named
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.sweeps.cost import RESERVE, USABLE, compute_type
from sdsbench.sweeps.memory import Batch, training_bytes
from sdsbench.sweeps.placing import AUTO
from sdsbench.tasks import base as tasks
from sdsbench.tasks.classification import LabelledTask
from sdsbench.training.side_by_side import Leave, Member, SideBySide, with_shared_weights

LARGEST = 8  # runs that `auto` puts into a group


def kinship(config: RunConfig) -> str | None:
    """The same text for runs that may share a base, since they differ in seeds and learning rates alone.

    None for a run that trains alone: the base itself trains, or a new head does.
    """
    if not isinstance(config.method, LowRankConfig) or isinstance(tasks.build(config.task), LabelledTask):
        return None
    tree = named(config)
    del tree["seed"], tree["seeds"], tree["train"]["lr"]
    return canonical_json(tree)


def group_size(asked: int | str, config: RunConfig) -> int:
    """How many runs like this one train side by side here.

    `auto` is 1 on a CPU, where groups were measured to bring nothing (docs/speed.md), and on CUDA the most, up to
    LARGEST, whose counted memory fits the device.
    """
    if asked != AUTO:
        return int(asked)
    if config.device == "cpu" or not torch.cuda.is_available() or kinship(config) is None:
        return 1
    return most_that_fit(config, torch.cuda.get_device_properties(0).total_memory)


def most_that_fit(config: RunConfig, device_bytes: float) -> int:
    """The largest group, up to LARGEST, whose counted memory a device of that size holds; 1 where none is known."""
    for runs in range(LARGEST, 1, -1):
        needed = group_bytes(config, runs)
        if needed is not None and needed + RESERVE <= device_bytes * USABLE:
            return runs
    return 1


def group_bytes(config: RunConfig, runs: int) -> int | None:
    """Memory of a joint step, every example at train.max_length; None where the architecture is not known."""
    longest = Batch((config.train.max_length,) * config.train.batch_size, 1.0)
    return training_bytes(config, longest, compute_type(config), runs)


class OneBase:
    """Loads as `load` does, once: every member gets modules of its own around the same weights."""

    def __init__(self, load: Callable[..., LoadedModel]) -> None:
        self._load = load
        self.loaded: LoadedModel | None = None

    def __call__(self, config: ModelConfig, dtype: torch.dtype, num_labels: int | None = None) -> LoadedModel:
        if self.loaded is None:
            self.loaded = self._load(config, dtype, num_labels)
        return dataclasses.replace(self.loaded, model=with_shared_weights(self.loaded.model))


def train_side_by_side(members: Sequence[Member], base: OneBase, leave: Leave, say: Callable[[str], None]) -> None:
    """Train what goes at the same pace together; what is left over trains alone later.

    `leave` hears of every member that its own error ends.
    """
    paces: dict[Any, list[Member]] = defaultdict(list)
    for member in members:
        paces[member.pace].append(member)
    for group in paces.values():
        if len(group) == 1:
            continue
        assert base.loaded is not None, "the members loaded it"
        try:
            SideBySide(base.loaded.model.to(group[0].training.device), group).run(leave)
        except Exception as error:
            say(f"{len(group)} runs side by side: {type(error).__name__}: {error}. They go on alone.")
