"""`sdsbench doctor`: what this machine has and lacks for runs; exit code 0 if the default run can start."""

from __future__ import annotations

from collections.abc import Iterator

import click

WITHOUT_A_HUB = ("micro", "smollm2_135m", "gemma3_270m")
"""Language models whose weights are part of a Python package."""


@click.command("doctor")
def command() -> None:
    """Print what this machine has and lacks for runs; the exit code is 0 if the default run can start."""
    import itertools

    from sdsbench.models.location import folder_of
    from sdsbench.runs.configuration.compose import compose_run

    for name, value in itertools.chain(_machine(), _packages(), _models()):
        print(f"{name:<22} {value}", flush=True)
    folder_of(compose_run([]).model)
    print("the default run can start")


def _machine() -> Iterator[tuple[str, str]]:
    import os
    import platform
    import shutil

    from sdsbench.cli.shared.options import RUNS
    from sdsbench.core.processor import usable_cores
    from sdsbench.data.sources import hub_reachable
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.origin import commit, uncommitted
    from sdsbench.sweeps.pool import visible_gpus
    from sdsbench.training.precision import select_device

    device = select_device("auto", "auto", 0, 10**9)
    yield "python", platform.python_version()
    yield "device", device.device_name
    yield "compute type", f"{str(device.dtype).removeprefix('torch.')}: {device.dtype_reason}"
    yield "cores", f"{usable_cores()} of {os.cpu_count()} usable by this process"
    yield "GPUs", ", ".join(visible_gpus()) or "none"
    yield "cache folder", _cache()
    yield "results", f"{RUNS}: {shutil.disk_usage('.').free / 1e9:.0f} GB free"
    yield (
        "hub",
        "reachable" if hub_reachable() else "not reachable (models and data from packages, folders, generators)",
    )
    changes = " with changes" if uncommitted(compose_run([])) else ""
    yield "code", f"commit {commit()}{changes}" if commit() else "installed package"
    yield "SLURM", _slurm()
    yield "W&B", _wandb()


def _cache() -> str:
    import shutil

    from sdsbench.core.disk_cache import cache_folder
    from sdsbench.core.errors import Unavailable

    try:
        folder = cache_folder()
    except Unavailable as error:
        return str(error)
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{folder}: {used / 1e9:.1f} GB used, {shutil.disk_usage(folder).free / 1e9:.0f} GB free"


def _slurm() -> str:
    import shutil
    import subprocess

    if shutil.which("sbatch") is None:
        return "no sbatch"
    try:
        asked = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return "sbatch found; the controller does not answer"
    return "sbatch found, the controller answers" if asked.returncode == 0 else f"sbatch found; {asked.stderr.strip()}"


def _wandb() -> str:
    """Whether the package of `tracker=wandb` is installed, and the mode it would use."""
    import importlib.util

    if importlib.util.find_spec("wandb") is None:
        return "not installed (optional)"
    from sdsbench.runs.tracking.tracker_config import TrackerConfig
    from sdsbench.runs.tracking.wandb_view import mode_of

    mode = mode_of(TrackerConfig(name="wandb"))
    return f"{mode} (no key: `wandb login`, or `wandb sync` later)" if mode == "offline" else mode


def _packages() -> Iterator[tuple[str, str]]:
    import importlib.metadata

    from sdsbench.runs.origin import package_versions

    yield from package_versions().items()
    for name in ("wandb", "peft"):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed (optional)"


def _models() -> Iterator[tuple[str, str]]:
    from sdsbench.core.errors import SdsbenchError
    from sdsbench.models.location import folder_of
    from sdsbench.runs.configuration.compose import compose_run

    for name in WITHOUT_A_HUB:
        try:
            folder_of(compose_run([f"model={name}", "task=gsm8k"]).model)
            yield f"model {name}", "at hand"
        except SdsbenchError as error:
            yield f"model {name}", str(error)
