"""A pytest plugin of scripts/gpu_suite.py: tests that ended in an earlier call are left out, and each end is a line.

The line is JSON: test, outcome (passed, failed, skipped), seconds, and the message of a failure.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

PROGRESS = "SDSBENCH_GPU_SUITE_PROGRESS"  # the file of the lines
DONE = "SDSBENCH_GPU_SUITE_DONE"  # its copy from before this call, so that all workers of pytest leave out the same


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The ends of tests in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    done = {line["test"] for line in lines_of(Path(os.environ[DONE]))}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


_reports: dict[str, list[Any]] = defaultdict(list)  # of set-up, call and teardown
_worker = False  # whether this is one of several processes of pytest, whose reports another process writes


def pytest_configure(config: Any) -> None:
    global _worker
    _worker = hasattr(config, "workerinput")


def pytest_runtest_logreport(report: Any) -> None:
    """Called for every phase of a test; with several workers, in the process that started them as well."""
    if _worker:
        return
    reports = _reports[report.nodeid]
    reports.append(report)
    if report.when != "teardown":
        return
    outcomes = {each.outcome for each in reports}
    outcome = next(name for name in ("failed", "skipped", "passed") if name in outcomes)
    line = {"test": report.nodeid, "outcome": outcome, "seconds": round(sum(each.duration for each in reports), 3)}
    if outcome == "failed":
        failed = next(each for each in reports if each.outcome == "failed")
        line["message"] = failed.longreprtext[-1000:]
    with open(os.environ[PROGRESS], "a") as file:
        file.write(json.dumps(line) + "\n")
