"""Keys under `tracker`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdsbench.core.errors import Problem


@dataclass
class TrackerConfig:
    """Where metrics are shown beside metrics.jsonl, which is always written and is the truth."""

    name: str
    project: str = "sdsbench"
    mode: str = "offline"

    def problems(self) -> Iterator[Problem]:
        if self.name not in ("none", "wandb"):
            yield Problem("tracker.name", self.name, "none, wandb")
        if self.mode not in ("offline", "online"):
            yield Problem("tracker.mode", self.mode, "offline, online")
