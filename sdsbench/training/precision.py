"""Which device and which number format a run computes in, and why."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from sdsbench.core.errors import Unavailable
from sdsbench.core.processor import usable_cores

SMALL_MODEL = 10_000_000  # below this many parameters bf16 saves no time on a CPU


@dataclass(frozen=True)
class Device:
    """The device, number format and thread count of a run, with the reason for the format."""

    device: torch.device
    device_name: str
    dtype: torch.dtype
    dtype_reason: str
    threads: int


def select_device(device: str, dtype: str, threads: int, parameters: int) -> Device:
    """Resolve `auto` values for a model of `parameters` weights and set torch's thread count.

    Raises Unavailable if `cuda` is requested but not available.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise Unavailable("device='cuda': this machine or this build of torch has no CUDA; accepted: cpu, auto")
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads or usable_cores())
    resolved, reason = _dtype(kind, dtype, parameters)
    name = torch.cuda.get_device_name() if kind == "cuda" else processor_name()
    return Device(torch.device(kind), f"{kind}: {name}", resolved, reason, torch.get_num_threads())


def _dtype(kind: str, dtype: str, parameters: int) -> tuple[torch.dtype, str]:
    if dtype != "auto":
        return getattr(torch, dtype), "asked for"
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU computes in it natively"
        return torch.float32, "the GPU has no native bfloat16"
    if parameters < SMALL_MODEL:
        return torch.float32, f"fewer than {SMALL_MODEL // 1_000_000} M parameters gain nothing from bfloat16"
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16, "the CPU computes in it natively"
    return torch.float32, "the CPU has no native bfloat16"


def processor_name() -> str:
    """The processor's model name, or its architecture where the system does not report one."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.machine()
