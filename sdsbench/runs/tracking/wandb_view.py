"""A run in Weights & Biases: name, group, tags, configuration, steps, scores, cost and the adapter's location.

The W&B run has the same id, so that a resumed run continues it. What W&B would add itself about the machine (host,
user, paths, command line, git) is disabled.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import Record, headline
from sdsbench.runs.tracking.tracker_config import TrackerConfig

PROJECT = "sdsbench"
PATIENCE = 60.0  # timeout in seconds for the server to start a run, and to receive the remaining data at its end
WandbMode = Literal["online", "offline", "disabled"]


class WandbView:
    """One W&B run. If the server cannot be used (no network, wrong key), writes an offline copy for `wandb sync`."""

    def __init__(self, config: TrackerConfig, folder: Path, record: Record) -> None:
        self._folder = folder
        mode = mode_of(config)
        try:
            self._run = self._init(config, record, mode)
        except Exception as error:  # W&B's network, login and service errors have no common class
            if mode != "online":
                raise Unavailable(f"tracker=wandb: {type(error).__name__}: {error}") from None
            print(f"W&B cannot be reached ({type(error).__name__}: {error}); offline instead", file=sys.stderr)
            import wandb

            wandb.teardown()  # else its service process keeps the run's id
            self._run = self._init(config, record, "offline")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        if step >= self._run.starting_step:  # W&B already has the earlier steps of a resumed run
            self._run.log(numbers, step=step)

    def close(self, record: Record) -> None:
        self._run.summary.update(summary_of(record, self._folder))
        import wandb

        try:
            self._run.finish(exit_code=0 if record.status == "done" else 1)
        except TimeoutError:
            print(f"W&B did not take all of {record.run_id}; `sdsbench replay` tells it again", file=sys.stderr)
        wandb.teardown()  # waits for its service, which may still write an offline copy

    def _init(self, config: TrackerConfig, record: Record, mode: WandbMode) -> Any:
        import wandb

        if mode == "offline":  # a new offline copy replaces an earlier one
            for earlier in (self._folder / "wandb").glob(f"offline-run-*-{record.run_id}"):
                shutil.rmtree(earlier)
        rank = f" r{record.rank}" if record.rank is not None else ""
        setting = f"{record.model} {record.task} {record.method}{rank}"
        return wandb.init(
            project=config.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            mode=mode, id=record.run_id, dir=str(self._folder), resume="allow",
            name=f"{setting} seed {record.seed}", group=f"{setting} lr {record.lr:g}", job_type=record.protocol,
            tags=sorted({record.model, record.method, record.task, record.protocol, record.config["data"]["source"]}),
            config={"run_id": record.run_id, **record.config},
            settings=wandb.Settings(
                silent=True, console="off", host="", disable_git=True, disable_code=True, disable_job_creation=True,
                x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
                program="", init_timeout=PATIENCE, finish_timeout=PATIENCE, finish_timeout_raises=True,
            ),
        )  # fmt: skip


def mode_of(config: TrackerConfig) -> WandbMode:
    """The mode that configuration and environment select; offline if W&B has no API key."""
    if config.mode != "auto":
        return config.mode
    asked = os.environ.get("WANDB_MODE")
    if asked in get_args(WandbMode):
        return asked  # type: ignore[return-value]
    import wandb

    try:
        return "online" if wandb.login(prompt=False, verify=False) else "offline"  # verifying it can take minutes
    except wandb.errors.AuthenticationError as error:
        print(f"W&B's key cannot be used ({error}); offline instead", file=sys.stderr)
        return "offline"


def summary_of(record: Record, folder: Path) -> dict[str, Any]:
    """Summary values for W&B's table of runs; `score` is the headline score as a fraction."""
    summary: dict[str, Any] = {"status": record.status}
    summary |= {f"{found.stage}/{found.evaluation}/{found.scorer}": found.value for found in record.scores}
    if (score := headline(record)) is not None:
        summary["score"] = score
    summary |= {f"cost/{name}_seconds": value for name, value in record.seconds.model_dump().items()}
    if record.memory:
        summary["cost/peak_bytes"] = record.memory.peak_bytes
    if record.parameters:
        summary["parameters/trainable"] = record.parameters.trainable
    if (folder / "adapter").is_dir():
        summary["adapter"] = f"{record.run_id}/adapter"
    return summary
