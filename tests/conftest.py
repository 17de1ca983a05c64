"""Fixtures and settings for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import sdsbench  # noqa: F401  # before torch: it sets what OpenMP reads when it loads

ROOT = Path(__file__).parent.parent

# No property test may depend on the machine's speed: hypothesis limits neither an example's time nor data generation.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Set torch to one thread: golden numbers depend on the thread count, and xdist workers must share the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the code believe that it prints to a terminal of 80 columns without colour."""
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where torch has no CUDA."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch has no CUDA here")


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The torch device of a test: its assertions are the same on the CPU and, with `pytest -m gpu`, on CUDA."""
    return request.param


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("SDSBENCH_DATA_ROOT", ROOT.parent / "shared" / "data"))
    if not (folder / "gsm8k" / "test.parquet").exists():
        pytest.skip(f"no real data at {folder.name}/ (set SDSBENCH_DATA_ROOT)")
    return folder
