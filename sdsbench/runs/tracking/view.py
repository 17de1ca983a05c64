"""Trackers: a separate process sends a run's folder to a tracker, so that errors of the tracker cannot affect the run.

    python -m sdsbench.runs.tracking.view FOLDER '{"name": "wandb", ...}'

The process reads metrics.jsonl while the run writes it. When the run's lock is free, it reads the record and ends. The
same can be done later from the folder (`sdsbench replay`), and a run never waits for a network or a login.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sdsbench.core import step_log
from sdsbench.core.errors import Unavailable
from sdsbench.core.lock import owner_lives
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.runs.tracking.tracker_config import TrackerConfig

LOOK_AGAIN = 2.0  # seconds between reads of a running run's log
LAST_WAIT = 10.0  # seconds that an ending process waits for its tracker processes
_VIEWS: dict[Path, subprocess.Popen[bytes]] = {}
_STARTED: dict[Path, float] = {}  # folder -> when its first tracker process here was started, in seconds since 1970


class View(Protocol):
    """A tracker's interface: receives the numbers of each step, and finally the record."""

    def log(self, step: int, numbers: dict[str, float]) -> None: ...
    def close(self, record: Record) -> None: ...


def start(config: TrackerConfig, folder: Path) -> None:
    """Start the tracker process of a running run; each run has at most one at a time.

    Raises Unavailable if the tracker's package is not installed.
    """
    if config.name == "none":
        return
    require(config)
    for other in [other for other, process in _VIEWS.items() if process.poll() is not None]:
        del _VIEWS[other]
    if folder in _VIEWS:
        return
    command = [sys.executable, "-m", "sdsbench.runs.tracking.view", str(folder), config.model_dump_json()]
    with (folder / "tracker.log").open("ab") as out:  # its own session, so that Ctrl-C reaches only the run
        _VIEWS[folder] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    _STARTED.setdefault(folder, time.time())
    atexit.unregister(wait_for_views)
    atexit.register(wait_for_views)


def wait_for_views(seconds: float = LAST_WAIT) -> None:
    """Wait for the tracker processes started here; print those still running after `seconds`, which continue alone, and
    where offline copies are."""
    until = time.monotonic() + seconds
    for folder, process in _VIEWS.items():
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"{folder.name}: its tracker is not done; `sdsbench replay {folder}` tells it again", file=sys.stderr)
    copies = [copy for folder, since in _STARTED.items() for copy in _offline_copies(folder, since)]
    if copies:
        several = f"{copies[0].parents[2]}/*/wandb/offline-run-*"
        place = copies[0] if len(copies) == 1 else several
        print(f"W&B was offline; to upload: wandb sync {place}", file=sys.stderr)
    _VIEWS.clear()
    _STARTED.clear()


def _offline_copies(folder: Path, since: float) -> list[Path]:
    """The W&B folders that a run wrote offline after `since`; one second of a file system's clock is allowed for."""
    found = sorted((folder / "wandb").glob(f"offline-run-*-{folder.name}"))
    return [copy for copy in found if copy.stat().st_mtime >= since - 1]


def require(config: TrackerConfig) -> None:
    """Raises Unavailable if the tracker's package is not installed."""
    if importlib.util.find_spec(config.name) is None:
        raise Unavailable(
            f"tracker={config.name}: the package {config.name} is not installed. Run: pip install "
            f"'sdsbench[{config.name}]', or leave the tracker out: `sdsbench replay` shows it the run later"
        )


def replay(config: TrackerConfig, folder: Path, goes_on: Callable[[], bool] = lambda: False) -> int:
    """Send a run's folder to its tracker, including lines added while `goes_on()`.

    Returns the number of optimizer steps sent; the scores before the first step, at step 0, are none.
    """
    from sdsbench.runs.tracking.wandb_view import WandbView

    path = folder / "metrics.jsonl"
    record = read_record(folder / "record.json")
    view: View = WandbView(config, folder, record)
    seen: set[str] = set()
    steps: set[int] = set()
    last = False
    while not last:
        last = not goes_on()  # checked before reading, so that the last lines are never missed
        for line in step_log.read(path):
            text = json.dumps(line)
            if text not in seen:
                seen.add(text)
                steps.add(line["step"])
                view.log(line["step"], numbers_of(line))
        if not last:
            time.sleep(LOOK_AGAIN)
    view.close(read_record(folder / "record.json"))
    return len(steps - {0})


def numbers_of(line: dict[str, Any]) -> dict[str, float]:
    """The numbers in a line of metrics.jsonl, by their tracker names: train/loss, trained/gsm8k/flexible ..."""
    if line["kind"] == "eval":
        return {f"{line['stage']}/{line['evaluation']}/{line['scorer']}": line["value"]}
    numbers = {key: value for key, value in line.items() if isinstance(value, int | float) and key != "step"}
    return {f"{line['kind']}/{key}": value for key, value in numbers.items()}


def main() -> None:
    folder, config = Path(sys.argv[1]), TrackerConfig.model_validate_json(sys.argv[2])
    replay(config, folder, lambda: owner_lives(folder))


if __name__ == "__main__":
    main()
