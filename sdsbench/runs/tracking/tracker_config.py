"""Keys under `tracker`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.section import PLACES, Section

Mode = Literal["auto", "offline", "online"]


class TrackerConfig(Section):
    """Where metrics are shown in addition to metrics.jsonl, which is always written and is authoritative."""

    name: Annotated[Literal["none", "wandb"], PLACES] = Field("none", description="none: metrics.jsonl only")
    project: Annotated[str | None, PLACES] = Field(
        None, description="the tracker's project; null: WANDB_PROJECT, else sdsbench"
    )
    mode: Annotated[Mode, PLACES] = Field(
        "auto", description="offline: synchronise later; auto: WANDB_MODE, else online where W&B has a key"
    )
