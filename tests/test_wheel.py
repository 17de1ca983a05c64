"""The installed wheel works outside the checkout: it holds the configuration, the shipped model, published values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip installed a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if (
            name.startswith(("sdsbench/", "conf/", "results/", "slurm/", "pyproject", "README"))
            and (ROOT / name).is_file()
        ):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*build, str(folder / "site"), str(copy)], check=True, cwd=folder)
    return folder / "site"


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sdsbench", *words]
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, check=False)


def test_wheel_trains_and_evaluates_a_run(installed: Path, tmp_path: Path) -> None:
    words = [
        "model=micro",
        "method=lora",
        "data.source=embedded",
        "data.train_limit=32",
        "train.max_steps=2",
        "eval.limit=2",
    ]
    done = run(installed, *words, "task.max_new_tokens=4", f"output_root={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*/record.json"))
    assert (installed / "sdsbench" / "conf" / "config.yaml").is_file()


def test_wheel_lists_methods_and_names_the_key_nearest_to_a_misspelt_one(installed: Path) -> None:
    assert "sds_lora" in run(installed, "ls", "method").stdout
    refused = run(installed, "model=micro", "method.rnk=3")
    assert refused.returncode == 2 and "method.rank" in refused.stderr
