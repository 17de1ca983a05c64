"""Number of usable cores, defaults of libraries' environment variables, and the load of other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdsbench.core import processor
from sdsbench.core.processor import DEFAULTS, Load, set_defaults, shared_text, usable_cores

LIMITS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def _sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processor, "_affinity", lambda: set(range(64)))


def write_system_files(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CPU_GROUP = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/job/step\n", {}, 64),
        ("0::/job/step\n", {"sys/fs/cgroup/job/cpu.max": "max 100000\n"}, 64),
        ("0::/job/step\n", {"sys/fs/cgroup/job/step/cpu.max": "400000 100000\n"}, 4),
        ("0::/job/step\n", {"sys/fs/cgroup/job/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            "4:cpu,cpuacct:/docker/a\n3:memory:/docker/a\n",
            {f"{CPU_GROUP}/cpu.cfs_quota_us": "300000\n", f"{CPU_GROUP}/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {f"{CPU_GROUP}/cpu.cfs_quota_us": "-1\n", f"{CPU_GROUP}/cpu.cfs_period_us": "100000\n"},
            64,
        ),
    ],
)
def test_quota_of_a_container_limits_the_cores(groups: str, files: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert usable_cores(write_system_files(tmp_path, groups, files)) == cores


@pytest.mark.parametrize("name", LIMITS)
def test_slurm_and_openmp_limit_the_cores(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "4,2" if name == "OMP_NUM_THREADS" else "4")
    assert usable_cores(tmp_path) == 4
    monkeypatch.setenv(name, "all")
    assert usable_cores(tmp_path) == 64


def test_run_uses_as_many_threads_as_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from sdsbench.training.precision import select_device

    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    try:
        assert select_device("cpu", "float32", 0, 1).threads == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


def test_workers_share_the_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdsbench.sweeps import pool

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(pool, "usable_cores", lambda: 8)
    assert [one.threads for one in pool.cpu_allocations(2, 0)] == [4, 4]
    assert [len(one.cores) for one in pool.cpu_allocations(2, 0)] == [32, 32]
    assert [one.threads for one in pool.gpu_allocations(["0", "1", "2", "3"], 4, 0)] == [2, 2, 2, 2]


def test_defaults_are_set_before_torch_loads_and_keep_the_users_values(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, os, sdsbench; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    clean = {key: value for key, value in os.environ.items() if key not in DEFAULTS}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "PASSIVE"]
    for name in DEFAULTS:
        monkeypatch.setenv(name, "set by the user")
    set_defaults()
    assert {os.environ[name] for name in DEFAULTS} == {"set by the user"}


def test_the_users_wait_policy_is_not_overridden_by_a_spin_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """GNU's OpenMP prefers GOMP_SPINCOUNT to OMP_WAIT_POLICY where both are set."""
    for given, expected in ({}, {"PASSIVE", "500"}), ({"OMP_WAIT_POLICY": "ACTIVE"}, {"ACTIVE"}):
        for name in DEFAULTS:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        set_defaults()
        assert {os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ} == expected


def test_note_is_shown_where_other_processes_use_many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Load(busy=100.0, own=3.0, clock=50.0)
    monkeypatch.setattr(Load, "now", lambda: Load(busy=500.0, own=13.0, clock=60.0))
    assert start.others_since() == pytest.approx(39.0)
    assert "held 39.0 of the 64 cores" in str(shared_text(start))
    monkeypatch.setattr(Load, "now", lambda: Load(busy=130.0, own=13.0, clock=60.0))
    assert shared_text(start) is None, "two cores of 64 are too few for a note"
    monkeypatch.undo()
    assert Load.now() is None or Load.now().busy > 0  # type: ignore[union-attr]
    assert shared_text(None) is None, "a system that does not report its load"
