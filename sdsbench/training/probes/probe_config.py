"""Keys under `probe`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdsbench.core.section import PLACES, Count, Section


class ProbeConfig(Section):
    """Measures the geometry of training at some steps. Probes change no result, so they are not part of a run's id."""

    every: Annotated[Count | None, PLACES] = Field(
        None, description="optimizer steps between measurements of the geometry of training; null: none"
    )
    rows: Annotated[Count, PLACES] = Field(8, description="training rows whose full gradient a probe computes")
