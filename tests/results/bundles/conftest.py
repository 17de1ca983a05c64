"""Two small runs that differ in their seed, and a bundle of them, made once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.results.bundles.write import write
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from tests.sweeps.tools import TINY
from tests.tools import QUIET

WORDS = [word for word in TINY if not word.startswith(("train.max_steps", "eval.limit", "task.max_new"))]
RUN = [*WORDS, "method=sds_lora", "train.max_steps=4", "eval.limit=4", "task.max_new_tokens=8", "train.lr=1e-3"]


@pytest.fixture(scope="session")
def bundled_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two finished runs."""
    root = tmp_path_factory.mktemp("bundled") / "runs"
    for seed in (0, 1):
        execute(compose_run([*RUN, f"seed={seed}", f"output_root={root}"]), QUIET)
    return root


@pytest.fixture(scope="session")
def bundle(bundled_runs: Path) -> Path:
    path = bundled_runs.parent / "two.zip"
    assert write(path, [bundled_runs]).remarks == []
    return path
