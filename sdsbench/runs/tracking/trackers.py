"""Trackers are views of metrics.jsonl: they hold nothing that the file does not, and can be made again from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sdsbench.core.errors import Unavailable
from sdsbench.runs.tracking.tracker_config import TrackerConfig


class Tracker(Protocol):
    """Shows numbers of steps somewhere."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class NoTracker:
    """metrics.jsonl alone."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class WandbTracker:
    """Weights & Biases; the run there has our run id, so that a resumed run continues it."""

    def __init__(self, config: TrackerConfig, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise Unavailable(
                "tracker=wandb: the package wandb is not installed. Run: pip install sdsbench[wandb]"
            ) from None
        self._run: Any = wandb.init(
            project=config.project, mode=config.mode, id=folder.name, dir=str(folder), resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def tracker_of(config: TrackerConfig, folder: Path) -> Tracker:
    """The tracker that a configuration names."""
    return WandbTracker(config, folder) if config.name == "wandb" else NoTracker()


def replay(config: TrackerConfig, folder: Path) -> int:
    """Send a finished run's metrics.jsonl to a tracker; returns the number of steps sent."""
    from sdsbench.core import step_log as metrics

    tracker = tracker_of(config, folder)
    lines = [line for line in metrics.read(folder / "metrics.jsonl") if line["kind"] == "train"]
    for line in lines:
        tracker.log(line["step"], {key: value for key, value in line.items() if key not in ("kind", "step")})
    tracker.close()
    return len(lines)
