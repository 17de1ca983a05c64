"""Keys under `model`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.core.section import INERT, PathText, Section, only_where, other_than

CLASSES = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModelForSequenceClassification",
    "vision": "AutoModelForImageClassification",
}
"""transformers' class of a family's task models."""

PACKAGED = re.compile(r"[A-Za-z_]\w*(/\w[\w.+-]*)+", re.ASCII)
"""Form of `package/path`: a top-level package only, since Python imports parents to find a subpackage; no path leads
out of the package."""


class ModelConfig(Section):
    """Which pretrained weights, from where, at which revision."""

    name: str = Field(description="the model's name in tables")
    family: Literal["decoder", "encoder", "vision"] = Field(
        description="kind of model: text generation, text classification or image classification"
    )
    source: str = Field(description="package, hub, folder, or a file format with a registered reader")
    location: PathText | None = Field(None, description="name, package/path, hub repository or folder")
    revision: Annotated[str | None, only_where(source=other_than("folder"))] = Field(
        None, description="version of the package, or commit of the hub repository"
    )
    architecture: Annotated[str | None, INERT] = Field(
        None,
        pattern=r"^[\w.-]+$",
        description="shipped config.json that gives layer names and shapes before a download",
    )
    image_size: Annotated[int | None, only_where(family="vision")] = Field(
        None,
        ge=1,
        le=4096,
        description="side in pixels to which images are resized, a multiple of the patch size; positions are resampled "
        "for it; null: the size in the model's files",
    )

    @property
    def resampled_size(self) -> int | None:
        """`image_size` for image models; None for others, where it has no effect."""
        return self.image_size if self.family == "vision" else None

    def problems(self) -> Iterator[Problem]:
        if self.source == "folder" and not (self.location and (Path(self.location) / "config.json").is_file()):
            yield Problem("model.location", self.location, "a folder with config.json and model.safetensors")
        if self.source not in ("folder", "hub") and not PACKAGED.fullmatch(self.location or ""):
            yield Problem(
                "model.location", self.location, "PACKAGE/PATH, the name of an installed package and a path inside it"
            )
        if self.source == "hub" and not self.location:
            yield Problem("model.location", self.location, "OWNER/NAME of a repository of the hub")
        if self.source == "hub" and not self.revision:
            yield Problem(
                "model.revision", self.revision, "a commit of the hub repository", "Results need pinned weights."
            )
