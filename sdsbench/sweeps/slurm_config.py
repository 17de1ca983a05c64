"""The `slurm` section: conf/slurm/*.yaml, and `slurm.KEY=VALUE` on the command line of `sdsbench submit`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from pydantic import Field

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.section import Accepts, Count, Section, WholeFromZero
from sdsbench.core.spelling import nearest
from sdsbench.runs.configuration import overrides
from sdsbench.runs.configuration.choices import conf_folder, options
from sdsbench.runs.configuration.foreign import file_problems
from sdsbench.runs.configuration.typed import parse_section

DEFAULT = "gpu"
TEXTS = ("slurm.time", "slurm.memory")  # keys whose values are kept as text even if they look like numbers
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
_TIME_FORMS = "90 (minutes), 4:00, 100:00:00, 2-0, 2-12:30:00, 90m, 4h or 2d, in quotes in a file"

# A Word or Constraint cannot look like an option, and has no space and no character that sbatch replaces (%).
Word = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,:/+@-]*$", description="without spaces or special characters")
]
Constraint = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_\[(][A-Za-z0-9_.,:|&*()\[\]-]*$", description="of node features")
]
Argument = Annotated[
    str, Field(pattern=r"^[^\x00-\x20\x7f-][^\x00-\x1f\x7f]*$", description="that does not begin with a dash")
]
Option = Annotated[str, Field(pattern=r"^--?[A-Za-z][^\x00-\x1f\x7f]*$", description="that begins with a dash")]
Event = Literal[
    "NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT",
    "TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS",
]  # fmt: skip


class SlurmConfig(Section):
    """The resources and options of a job array; conf/slurm/gpu.yaml explains the keys."""

    partition: Word | None
    account: Word | None
    qos: Word | None
    constraint: Constraint | None
    time: Annotated[str, Accepts(_TIME_FORMS)] = Field(
        pattern=r"^(\d+|\d+:\d{2}|\d+:\d{2}:\d{2}|\d+-\d+(:\d{2}){0,2}|\d+[mhd])$"
    )
    gpus: WholeFromZero = Field(description="GPUs per task; with several, each has its own worker")
    gpu_type: Word | None
    cpus: Count
    memory: str = Field(pattern=r"^\d+[KMGT]?$", description="main memory per task", examples=["64G"])
    container: Argument | None
    binds: list[Argument]
    setup: list[str]
    runs_per_task: Count
    max_parallel: Count | None
    signal_seconds: int = Field(ge=1, le=65535)
    max_requeues: WholeFromZero
    mail_user: Word | None
    mail_type: list[Event] = Field(min_length=1, description="one or several events of SLURM's --mail-type")
    extra: list[Option] = Field(description="options of sbatch, such as --exclude=node7")

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        return time_limit_seconds(self.time)

    @property
    def time_limit(self) -> str:
        """The time limit as D-HH:MM:SS."""
        minutes, seconds = divmod(self.seconds, 60)
        return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}"

    def problems(self) -> Iterator[Problem]:
        if self.signal_seconds >= self.seconds:
            yield Problem(
                "slurm.signal_seconds", self.signal_seconds, f"less than slurm.time={self.time}",
                "A task would be told to stop when it starts.",
            )  # fmt: skip


def time_limit_seconds(time: str) -> int:
    """Seconds of a time in one of SLURM's forms, or of 90m, 4h, 2d: "4:00" is four minutes, "2-0" two days."""
    if time[-1] in _SECONDS:
        return int(time[:-1]) * _SECONDS[time[-1]]
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, minutes, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def split_slurm_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words of a command line into those of the `slurm` section and all others."""
    own = [word for word in words if word.lstrip("+").startswith(("slurm=", "slurm."))]
    return own, [word for word in words if word not in own]


def configure(words: Sequence[str], config_dirs: Sequence[str] = ()) -> SlurmConfig:
    """Parse `slurm=NAME` and `slurm.KEY=VALUE`; a user's own file inherits by Hydra's `defaults: [gpu]`.

    Raises ConfigError with every problem found.
    """
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
        problems.append(Problem("slurm", name, ", ".join(known), nearest(name, known)))
    if problems := [*problems, *file_problems(config_dirs)]:
        raise ConfigError(problems)
    config, found = parse_section(SlurmConfig, _composed(name, config_dirs) | values, "slurm")
    if found or config is None:
        raise ConfigError(found)
    return config


def _composed(name: str, config_dirs: Sequence[str]) -> dict[str, Any]:
    """The keys of one file of conf/slurm, including those that it inherits."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        try:
            composed = compose("submit", [*overrides.search_path(config_dirs), f"slurm={name}"])
            tree = OmegaConf.to_container(composed.slurm, resolve=True)
        except Exception as error:  # Hydra, OmegaConf and PyYAML have no common class for errors in users' files
            words = "a file whose keys are those of slurm/gpu.yaml"
            raise ConfigError([Problem("slurm", name, words, overrides.one_line(error))]) from None
    if not isinstance(tree, dict):
        raise ConfigError([Problem("slurm", name, "a file with keys and values")])
    return {str(key): value for key, value in tree.items()}
