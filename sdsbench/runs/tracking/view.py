"""A tracker is a view of a run's folder, made by a process beside the run: nothing that happens to it reaches the run.

    python -m sdsbench.runs.tracking.view FOLDER '{"name": "wandb", ...}'

It reads metrics.jsonl as the run writes it until the run's lock is free, then the record, and ends. So a view can be
made again from the folder at any time (`sdsbench replay`), and a run waits neither for a network nor for a login.
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

LOOK_AGAIN = 2.0  # seconds between looks at a run that goes on
LAST_WAIT = 10.0  # seconds that a process which ends gives all its views to end as well
_VIEWS: dict[Path, subprocess.Popen[bytes]] = {}


class View(Protocol):
    """What a tracker is told: numbers of steps, and in the end the record."""

    def log(self, step: int, numbers: dict[str, float]) -> None: ...
    def close(self, record: Record) -> None: ...


def start(config: TrackerConfig, folder: Path) -> None:
    """Begin the view of a run that goes on, in a process of its own; one at a time for each run.

    Raises Unavailable where the tracker's package is not installed.
    """
    if config.name == "none":
        return
    require(config)
    if folder in _VIEWS and _VIEWS[folder].poll() is None:
        return
    command = [sys.executable, "-m", "sdsbench.runs.tracking.view", str(folder), config.model_dump_json()]
    with (folder / "tracker.log").open("ab") as out:  # a session of its own: a terminal's Ctrl-C is for the run
        _VIEWS[folder] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    atexit.unregister(wait_for_views)
    atexit.register(wait_for_views)


def wait_for_views(seconds: float = LAST_WAIT) -> None:
    """Let the views of this process end; names those that are not done by then, which go on alone."""
    until = time.monotonic() + seconds
    for folder, process in _VIEWS.items():
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"{folder.name}: its tracker is not done; `sdsbench replay {folder}` tells it again", file=sys.stderr)
    _VIEWS.clear()


def require(config: TrackerConfig) -> None:
    """Raises Unavailable where the tracker's package is not installed."""
    if importlib.util.find_spec(config.name) is None:
        raise Unavailable(
            f"tracker={config.name}: the package {config.name} is not installed. Run: pip install "
            f"'sdsbench[{config.name}]', or leave the tracker out: `sdsbench replay` shows it the run later"
        )


def replay(config: TrackerConfig, folder: Path, goes_on: Callable[[], bool] = lambda: False) -> int:
    """Show a run's folder to its tracker, also what is added while `goes_on`; returns the number of steps shown."""
    from sdsbench.runs.tracking.wandb_view import WandbView

    path = folder / "metrics.jsonl"
    record = read_record(folder / "record.json")
    view: View = WandbView(config, folder, record)
    seen: set[str] = set()
    steps: set[int] = set()
    last = False
    while not last:
        last = not goes_on()  # before reading: what is written up to then is shown in any case
        for line in step_log.read(path):
            text = json.dumps(line)
            if text not in seen:
                seen.add(text)
                steps.add(line["step"])
                view.log(line["step"], numbers_of(line))
        if not last:
            time.sleep(LOOK_AGAIN)
    view.close(read_record(folder / "record.json"))
    return len(steps)


def numbers_of(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by their names in a tracker: train/loss, trained/gsm8k/flexible ..."""
    if line["kind"] == "eval":
        return {f"{line['stage']}/{line['evaluation']}/{line['scorer']}": line["value"]}
    numbers = {key: value for key, value in line.items() if isinstance(value, int | float) and key != "step"}
    return {f"{line['kind']}/{key}": value for key, value in numbers.items()}


def main() -> None:
    folder, config = Path(sys.argv[1]), TrackerConfig.model_validate_json(sys.argv[2])
    replay(config, folder, lambda: owner_lives(folder))


if __name__ == "__main__":
    main()
