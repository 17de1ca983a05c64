"""Keys under `model`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdsbench.core.errors import Problem

FAMILIES = ("decoder", "encoder", "vision")
SOURCES = ("gguf", "onnx", "package", "hub", "folder")


@dataclass
class ModelConfig:
    """Which pretrained weights, from where, at which revision."""

    name: str
    family: str
    source: str
    location: str | None = None
    revision: str | None = None
    architecture: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.family not in FAMILIES:
            yield Problem("model.family", self.family, ", ".join(FAMILIES))
        if self.source not in SOURCES:
            yield Problem("model.source", self.source, ", ".join(SOURCES))
        if self.source == "folder" and not (self.location and (Path(self.location) / "config.json").is_file()):
            yield Problem("model.location", self.location, "a folder with config.json and model.safetensors")
        if self.source == "hub" and not self.revision:
            yield Problem(
                "model.revision", self.revision, "a commit of the hub repository", "Results need pinned weights."
            )
