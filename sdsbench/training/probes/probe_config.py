"""Keys under `probe`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdsbench.core.section import PLACES, Count, Section


class ProbeConfig(Section):
    """Looks at the geometry of training every so often; changes no number of the run, so it is no part of its name."""

    every: Annotated[Count | None, PLACES] = Field(
        None, description="optimizer steps between looks at the geometry of training; null: no probes"
    )
    rows: Annotated[Count, PLACES] = Field(8, description="training rows whose full gradient a probe takes")
