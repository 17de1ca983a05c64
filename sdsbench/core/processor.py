"""CPU cores: how many this process may use, their load by other processes, and settings of libraries that use them.

The package's __init__ imports this module, so that environment variables are set before torch is loaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEFAULTS = {
    # Waiting threads sleep; if they spin, they slow down every other process (docs/speed.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    # They first spin this many times, for some microseconds: to wake a thread for each short operation takes longer.
    "GOMP_SPINCOUNT": "500",
    # Number of matrix shapes for which oneDNN caches code (default 1024); each entry holds megabytes of packed weights.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    # Number of matrix products that torch's own cache in front of oneDNN's keeps (default 1024).
    "LRU_CACHE_CAPACITY": "16",
    # On H100 and later GPUs torch prefers cuDNN's attention, which builds a plan for every new length (docs/speed.md).
    "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",
}
"""Environment variables and the values that they get unless the user has set them. Libraries read them only once."""

BUSY = 0.25  # share of the cores that other processes must use before a note is shown


def set_defaults() -> None:
    """Set the defaults; child processes inherit them. The spin count goes with our own wait policy only, since it would
    override a user's."""
    own_policy = "OMP_WAIT_POLICY" not in os.environ
    for name, value in DEFAULTS.items():
        if name != "GOMP_SPINCOUNT" or own_policy:
            os.environ.setdefault(name, value)


def usable_cores(root: Path = Path("/")) -> int:
    """Number of cores that this process may use: the minimum of affinity, container quota, SLURM and OpenMP limits.

    `root`: the folder that contains /proc and /sys.
    """
    limits = [len(_affinity()), *_quotas(root)]
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "OMP_NUM_THREADS"):
        given = os.environ.get(name, "").split(",")[0]  # OpenMP accepts a list; the first is for the outermost loop
        if given.isdigit() and int(given) > 0:
            limits.append(int(given))
    return max(1, int(min(limits)))


def _affinity() -> set[int]:
    """The cores on which the system lets this process run."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not on every system
        return set(range(os.cpu_count() or 1))


def _quotas(root: Path) -> Iterator[float]:
    """CPU quota, in cores, of each control group that contains the process (cgroup version 2 or 1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(root / "sys/fs/cgroup", path):
                yield from _quota(folder, "cpu.max")
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                for folder in _upwards(root / "sys/fs/cgroup" / mount, path):
                    yield from _quota(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and its parents up to the mount; in a container the mount itself may be the group."""
    folder = mount / path.strip("/")
    while True:
        yield folder
        if folder == mount:
            return
        folder = folder.parent


def _quota(folder: Path, *files: str) -> Iterator[float]:
    """quota / period, read from the files; nothing if there is no limit (`max`, or -1)."""
    try:
        quota, period = " ".join((folder / name).read_text() for name in files).split()
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return


@dataclass(frozen=True)
class Load:
    """CPU time used so far, by all processes on this process's cores and by this process alone."""

    busy: float  # CPU seconds of all processes on those cores
    own: float  # CPU seconds of this process
    clock: float  # time.perf_counter() at this moment

    @classmethod
    def now(cls) -> Load | None:
        """The load at this moment; None if the system does not report it."""
        try:
            lines = Path("/proc/stat").read_text().splitlines()
        except OSError:
            return None
        names, ticks = {f"cpu{core}" for core in _affinity()}, os.sysconf("SC_CLK_TCK")
        busy = 0.0
        for name, *numbers in (line.split() for line in lines if line.startswith("cpu")):
            if name in names:
                user, nice, system, _idle, _waiting, interrupts, soft = map(int, numbers[:7])
                busy += (user + nice + system + interrupts + soft) / ticks
        return cls(busy, time.process_time(), time.perf_counter())

    def others_since(self) -> float:
        """Average number of cores that other processes used since this moment."""
        now = Load.now()
        if now is None or now.clock <= self.clock:
            return 0.0
        return max(0.0, (now.busy - self.busy) - (now.own - self.own)) / (now.clock - self.clock)


def shared_text(since: Load | None) -> str | None:
    """A note for users if other processes used more than the share BUSY of the cores, else None."""
    held, cores = (since.others_since() if since else 0.0), len(_affinity())
    if held < BUSY * cores:
        return None
    return f"other work held {held:.1f} of the {cores} cores meanwhile: times are those of a shared machine"
