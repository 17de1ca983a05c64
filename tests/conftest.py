"""Fixtures that every part shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import sdsbench  # noqa: F401  # before torch: it sets what OpenMP reads when it loads

ROOT = Path(__file__).parent.parent

# No property test depends on the speed of the machine: hypothesis neither times an example nor the drawing of its data.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Golden numbers depend on the thread count; xdist workers must not fight for cores."""
    import torch

    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What needs CUDA is skipped without it."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch has no CUDA here")


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where a test computes: its assertions are the same on a CPU and, by `pytest -m gpu`, on CUDA."""
    return request.param


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SDSBENCH_DATA_ROOT", ROOT.parent / "shared" / "data"))
    if not (folder / "gsm8k" / "test.parquet").exists():
        pytest.skip(f"no real data at {folder.name}/ (set SDSBENCH_DATA_ROOT)")
    return folder
