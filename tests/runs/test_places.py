"""Where a run computes: what `auto` means, and a refusal where the device is absent."""

from __future__ import annotations

import pytest
import torch

from sdsbench.core.errors import Unavailable
from sdsbench.training.precision import select_device
from tests.tools import QUIET


def test_small_models_compute_in_float32_on_a_cpu() -> None:
    device = select_device("cpu", "auto", 1, 1_000_000)
    assert device.dtype == torch.float32 and "fewer than" in device.dtype_reason
    assert (device.device.type, device.threads) == ("cpu", 1)


def test_large_models_compute_in_bfloat16_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert select_device("cpu", "auto", 1, 10**9).dtype == dtype
    assert select_device("cpu", "float32", 1, 10**9).dtype_reason == "asked for"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_absent_cuda_is_refused() -> None:
    with pytest.raises(Unavailable, match=r"device='cuda'.*accepted: cpu, auto"):
        select_device("cuda", "auto", 1, 10**9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA on this machine")
def test_a_run_on_cuda(tmp_path) -> None:
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.execute import execute

    fast = [
        "model=micro",
        "method=sds_lora",
        "data.source=embedded",
        "train.max_steps=12",
        "eval.limit=8",
        "device=cuda",
    ]
    record = execute(compose_run([*fast, f"output_root={tmp_path}"]), QUIET)
    assert record.status == "done" and record.provenance is not None
    assert record.provenance.device_kind == "cuda"
    assert record.memory is not None and record.memory.kind == "cuda_allocated"
