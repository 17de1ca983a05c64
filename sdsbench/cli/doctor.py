"""`sdsbench doctor`: what this machine has and lacks for runs; exit code 0 if the default run can start."""

from __future__ import annotations

from collections.abc import Iterator

import click

WITHOUT_A_HUB = ("micro", "smollm2_135m")
"""Decoders whose weights come with a package."""


@click.command("doctor")
def command() -> None:
    """Say what this machine has and lacks for runs; the exit code is 0 if the default run can start."""
    from sdsbench.models.load import folder_of
    from sdsbench.runs.configuration.compose import compose_run

    for name, value in [*_machine(), *_packages(), *_models()]:
        print(f"{name:<22} {value}")
    folder_of(compose_run([]).model)
    print("the default run can start")


def _machine() -> Iterator[tuple[str, str]]:
    import os
    import platform
    import shutil

    from sdsbench.core.cache import cache_folder
    from sdsbench.core.processor import usable_cores
    from sdsbench.data.sources import hub_reachable
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.origin import commit, uncommitted
    from sdsbench.training.precision import select_device

    device = select_device("auto", "auto", 0, 10**9)
    free = shutil.disk_usage(cache_folder()).free
    yield "python", platform.python_version()
    yield "device", device.device_name
    yield "compute type", f"{str(device.dtype).removeprefix('torch.')}: {device.dtype_reason}"
    yield "cores", f"{usable_cores()} of {os.cpu_count()} usable by this process"
    yield "cache folder", f"{free / 1e9:.0f} GB free"
    yield (
        "hub",
        "reachable" if hub_reachable() else "not reachable (models and data from packages, folders, generators)",
    )
    changes = " with changes" if uncommitted(compose_run([])) else ""
    yield "code", f"commit {commit()}{changes}" if commit() else "installed package"
    yield "SLURM", "sbatch found" if shutil.which("sbatch") else "no sbatch"


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
    from sdsbench.models.load import folder_of
    from sdsbench.runs.configuration.compose import compose_run

    for name in WITHOUT_A_HUB:
        try:
            folder_of(compose_run([f"model={name}", "task=gsm8k"]).model)
            yield f"model {name}", "at hand"
        except SdsbenchError as error:
            yield f"model {name}", str(error)
