"""The typed configuration of one run. Each section is defined in the module that it configures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny

from sdsbench.core.allowed_names import RunId
from sdsbench.core.errors import Problem
from sdsbench.core.section import COSTS, INERT, PLACES, Accepts, PathText, Section
from sdsbench.data.data_config import DataConfig
from sdsbench.evaluation.evaluation_config import EvalConfig
from sdsbench.methods.base import MethodConfig
from sdsbench.models.model_config import ModelConfig
from sdsbench.runs.tracking.tracker_config import TrackerConfig
from sdsbench.tasks.base import TaskConfig
from sdsbench.training.probes.probe_config import ProbeConfig
from sdsbench.training.training_config import TrainConfig

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # the range that all used random generators accept


PROTOCOL_TABLES = ("protocol.paper", "protocol.code", "protocol.ours")
"""Keys whose values are free-form tables of text, not sections."""


class ProtocolConfig(Section):
    """A paper's settings: values that other sections copy by default, and the paper's own table of settings.

    Of this section, only `name` enters a run's id. Its values count in the sections that copy them.
    """

    name: str = Field(description="the protocol's name in tables")
    source: Annotated[str, INERT] = Field(description="the paper")
    rank: Annotated[int, INERT] = Field(description="default of method.rank")
    alpha: Annotated[float | str, INERT] = Field(description="default of method.alpha: a number, or r, 2r ...")
    dropout: Annotated[float, INERT] = Field(description="default of method.dropout")
    targets: Annotated[list[str], INERT] = Field(description="default of method.targets")
    lr: Annotated[float, INERT] = Field(description="default of train.lr")
    variant: Annotated[Literal["paper", "code"], INERT] = Field(
        "paper", description="source to follow where the paper and its authors' code differ; set by variant=code"
    )
    variants: Annotated[list[Literal["paper", "code"]], INERT] = Field(
        ["paper", "code"], description="the variants of the protocol"
    )
    seeds: Annotated[list[int], INERT] = Field([0, 1, 2], description="the seeds that a sweep of the protocol runs")
    paper: Annotated[dict[str, Any], INERT] = Field({}, description="the paper's own table of its settings, in words")
    code: Annotated[dict[str, Any], INERT] = Field(
        {}, description="settings of the authors' code that the paper lacks or contradicts, with the source line"
    )
    ours: Annotated[dict[str, Any], INERT] = Field(
        {}, description="settings in which this project differs from both, or that it does not offer"
    )

    def problems(self) -> Iterator[Problem]:
        if self.variant not in self.variants:
            accepted = f"{' or '.join(self.variants)} with protocol={self.name}"
            yield Problem("variant", self.variant, accepted, "No authors' code is known that differs from its paper.")


class SeedsConfig(Section):
    """Separate seeds for data order, initial values and dropout; each equals `seed` unless set."""

    data: Seed = Field(description="order of training rows")
    init: Seed = Field(description="the method's initial values, and those of a new head")
    dropout: Seed = Field(description="dropout masks, and the rounding of adamw8bit")


class RunConfig(Section):
    """The whole configuration of one run. identity.py defines which keys enter its id."""

    model: ModelConfig
    method: SerializeAsAny[MethodConfig]
    task: SerializeAsAny[TaskConfig]
    protocol: ProtocolConfig
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    data: DataConfig = DataConfig()
    tracker: TrackerConfig = TrackerConfig()
    probe: ProbeConfig = ProbeConfig()
    seeds: SeedsConfig
    start_from: Annotated[
        RunId | None,
        Accepts("null, or the 16 hexadecimal digits of a finished run in output_root, quoted where they are a number"),
    ] = Field(
        None,
        description="run whose trained tensors, except a head's label layer, this run starts from; null: the base "
        "model and the method's own initial values",
    )
    seed: Seed = Field(0, description="default of the three seeds; tables pair runs by it")
    device: Annotated[Literal["auto", "cpu", "cuda"], COSTS] = Field("auto", description="device of the tensors")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="number format of computation")
    threads: Annotated[int, COSTS] = Field(
        0, ge=0, le=4096, description="CPU threads; 0: as many as the cores that the process may use"
    )
    output_root: Annotated[PathText, PLACES] = Field(
        "results/runs", description="folder that contains the runs' folders"
    )
    force: Annotated[bool, PLACES] = Field(
        False, description="run again even if there is a finished record, which is set aside with its trained tensors"
    )
    plugins: Annotated[list[str], PLACES] = Field(
        [], description="modules of your own that register methods, tasks, models (docs/plugins.md)"
    )
