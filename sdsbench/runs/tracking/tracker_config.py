"""Keys under `tracker`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.section import PLACES, Section


class TrackerConfig(Section):
    """Where metrics are shown beside metrics.jsonl, which is always written and is the truth."""

    name: Annotated[Literal["none", "wandb"], PLACES] = Field("none", description="none: metrics.jsonl only")
    project: Annotated[str, PLACES] = Field("sdsbench", description="the tracker's project")
    mode: Annotated[Literal["offline", "online"], PLACES] = Field("offline", description="offline: synchronise later")
