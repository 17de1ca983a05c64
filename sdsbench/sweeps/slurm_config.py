"""conf/slurm/*.yaml and `slurm.KEY=VALUE` on the command line of `sdsbench submit`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.spelling import nearest
from sdsbench.runs.configuration.compose import conf_folder, options
from sdsbench.runs.configuration.typed import parse_section

DEFAULT = "gpu"
TEXTS = ("slurm.time", "slurm.memory")  # 00:10:00 is a number to YAML
_TIME = re.compile(r"(\d+-)?\d{1,2}:\d{2}:\d{2}")


@dataclass
class SlurmConfig:
    """What a job array asks SLURM for; conf/slurm/gpu.yaml explains the keys."""

    partition: str | None
    account: str | None
    qos: str | None
    time: str
    gpus: int
    gpu_type: str | None
    cpus: int
    memory: str
    container: str | None
    setup: list[str]
    runs_per_task: int
    max_parallel: int | None
    signal_seconds: int
    max_requeues: int
    extra: list[str]

    def problems(self) -> Iterator[Problem]:
        for key in ("cpus", "runs_per_task"):
            if getattr(self, key) < 1:
                yield Problem(f"slurm.{key}", getattr(self, key), "a whole number from 1")
        if self.gpus not in (0, 1):
            yield Problem("slurm.gpus", self.gpus, "0 or 1", "A run uses one GPU at most.")
        if self.max_parallel is not None and self.max_parallel < 1:
            yield Problem("slurm.max_parallel", self.max_parallel, "a whole number from 1, or null")
        if not 1 <= self.signal_seconds <= 65535:
            yield Problem("slurm.signal_seconds", self.signal_seconds, "a whole number from 1 to 65535")
        if self.max_requeues < 0:
            yield Problem("slurm.max_requeues", self.max_requeues, "a whole number from 0")
        if not _TIME.fullmatch(self.time):
            yield Problem("slurm.time", self.time, "HH:MM:SS or D-HH:MM:SS, in quotes")
        if not re.fullmatch(r"\d+[KMGT]?", self.memory):
            yield Problem("slurm.memory", self.memory, "a size such as 64G")
        for key in ("partition", "account", "qos", "gpu_type", "container"):
            value = getattr(self, key)
            if value is not None and not re.fullmatch(r"[\w.,:/+@-]+", value):
                yield Problem(f"slurm.{key}", value, "a name without spaces or shell characters, or null")
        for line in self.extra:
            if not line.startswith("-") or "\n" in line:
                yield Problem("slurm.extra", line, "options of sbatch, such as --exclude=node7")


def configure(words: Sequence[str], config_dirs: Sequence[str] = ()) -> SlurmConfig:
    """`slurm=NAME` and `slurm.KEY=VALUE`. Raises ConfigError with every problem."""
    problems: list[Problem] = []
    name, values = DEFAULT, {}
    for word in words:
        key, _, text = word.partition("=")
        value = text if key in TEXTS else _yaml(text)
        if key == "slurm":
            name = str(value)
        else:
            values[key.removeprefix("slurm.")] = value
    known = options("slurm", config_dirs)
    if name not in known:
        raise ConfigError([Problem("slurm", name, ", ".join(known), nearest(name, known))])
    folders = [*map(Path, config_dirs), conf_folder()]
    path = next(
        folder / "slurm" / f"{name}.yaml" for folder in folders if (folder / "slurm" / f"{name}.yaml").is_file()
    )
    tree: dict[str, Any] = yaml.safe_load(path.read_text())
    config, found = parse_section(SlurmConfig, tree | values, "slurm")
    problems += found
    if config is not None:
        problems += config.problems()
    if problems:
        raise ConfigError(problems)
    return config


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
