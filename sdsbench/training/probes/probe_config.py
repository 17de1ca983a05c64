"""Keys under `probe`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdsbench.core.section import PLACES, Count, Section


class ProbeConfig(Section):
    """Measures the geometry of training at some steps. It changes no result, so it is no part of a run's id."""

    every: Annotated[Count | None, PLACES] = Field(
        None, description="optimizer steps between looks at the geometry of training; null: no probes"
    )
    rows: Annotated[Count, PLACES] = Field(8, description="training rows whose full gradient a probe takes")
