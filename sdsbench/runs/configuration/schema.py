"""The typed configuration of one run: a dataclass a section, each beside the code that it configures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sdsbench.core.errors import Problem
from sdsbench.data.data_config import DataConfig
from sdsbench.evaluation.evaluation_config import EvalConfig
from sdsbench.methods.base import MethodConfig
from sdsbench.models.model_config import ModelConfig
from sdsbench.runs.tracking.tracker_config import TrackerConfig
from sdsbench.tasks.base import TaskConfig
from sdsbench.training.probes.probe_config import ProbeConfig
from sdsbench.training.training_config import TrainConfig

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16")


@dataclass
class ProtocolConfig:
    """A paper's settings: the values that other sections interpolate, and the paper's own table of them.

    `variant` decides where the paper and its authors' code differ.
    """

    name: str
    source: str
    rank: int
    alpha: float
    dropout: float
    targets: list[str]
    lr: float
    variant: str = "paper"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    paper: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        if self.variant not in ("paper", "code"):
            yield Problem("protocol.variant", self.variant, "paper or code")


@dataclass
class SeedsConfig:
    """Seeds that move one thing each; all follow `seed` unless set."""

    data: int
    init: int
    dropout: int

    def problems(self) -> Iterator[Problem]:
        for key in ("data", "init", "dropout"):
            if getattr(self, key) < 0:
                yield Problem(f"seeds.{key}", getattr(self, key), "a whole number from 0")


@dataclass
class RunConfig:
    """Everything that decides one run. `identity.py` says which keys name the run and which only place it."""

    model: ModelConfig
    method: MethodConfig
    task: TaskConfig
    protocol: ProtocolConfig
    train: TrainConfig
    eval: EvalConfig
    data: DataConfig
    tracker: TrackerConfig
    probe: ProbeConfig
    seeds: SeedsConfig
    seed: int
    device: str
    dtype: str
    threads: int
    output_root: str
    force: bool
    plugins: list[str]

    def problems(self) -> Iterator[Problem]:
        if self.seed < 0:
            yield Problem("seed", self.seed, "a whole number from 0")
        if self.threads < 0:
            yield Problem("threads", self.threads, "a whole number from 1, or 0 for all cores")
        if self.device not in DEVICES:
            yield Problem("device", self.device, ", ".join(DEVICES))
        if self.dtype not in DTYPES:
            yield Problem("dtype", self.dtype, ", ".join(DTYPES))
