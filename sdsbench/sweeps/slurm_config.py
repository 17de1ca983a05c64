"""conf/slurm/*.yaml and `slurm.KEY=VALUE` on the command line of `sdsbench submit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.section import Count, Section, WholeFromZero
from sdsbench.core.spelling import nearest
from sdsbench.runs.configuration import overrides
from sdsbench.runs.configuration.choices import conf_folder, options
from sdsbench.runs.configuration.typed import parse_section

DEFAULT = "gpu"
TEXTS = ("slurm.time", "slurm.memory")  # texts even where they are written as a number
Name = Annotated[str, Field(pattern=r"^[\w.,:/+@-]+$", description="without spaces or shell characters")]


class SlurmConfig(Section):
    """What a job array asks SLURM for; conf/slurm/gpu.yaml explains the keys."""

    partition: Name | None
    account: Name | None
    qos: Name | None
    time: str = Field(
        pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$", description="HH:MM:SS or D-HH:MM:SS, in quotes", examples=["24:00:00"]
    )
    gpus: Literal[0, 1] = Field(description="a run uses one GPU at most")
    gpu_type: Name | None
    cpus: Count
    memory: str = Field(pattern=r"^\d+[KMGT]?$", description="main memory of a task", examples=["64G"])
    container: Name | None
    setup: list[str]
    runs_per_task: Count
    max_parallel: Count | None
    signal_seconds: int = Field(ge=1, le=65535)
    max_requeues: WholeFromZero
    extra: list[Annotated[str, Field(pattern=r"^-[^\n]*$")]] = Field(
        description="options of sbatch, such as --exclude=node7"
    )


def configure(words: Sequence[str], config_dirs: Sequence[str] = ()) -> SlurmConfig:
    """`slurm=NAME` and `slurm.KEY=VALUE`. Raises ConfigError with every problem."""
    name, values = DEFAULT, dict[str, Any]()
    parsed, problems = overrides.parse(words)
    for override in parsed:
        key, value = override.key_or_group, override.value()
        if problem := overrides.refuse_kind(override, ()):
            problems.append(problem)
        elif key == "slurm":
            name = str(value)
        else:
            values[key.removeprefix("slurm.")] = str(value) if key in TEXTS else value
    known = options("slurm", config_dirs)
    if name not in known:
        raise ConfigError([Problem("slurm", name, ", ".join(known), nearest(name, known))])
    folders = [*map(Path, config_dirs), conf_folder()]
    path = next(
        folder / "slurm" / f"{name}.yaml" for folder in folders if (folder / "slurm" / f"{name}.yaml").is_file()
    )
    tree: dict[str, Any] = yaml.safe_load(path.read_text())
    config, found = parse_section(SlurmConfig, tree | values, "slurm")
    if found or config is None:
        raise ConfigError(found)
    return config
