"""The device and dtype of a run: the meaning of `auto`, and the refusal of an absent device."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sdsbench.core.errors import Unavailable
from sdsbench.core.processor import Load
from sdsbench.models.load import load as load_model
from sdsbench.runs import banner, prepare
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.training import attention
from sdsbench.training.precision import Device, select_device
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
def test_run_on_cuda_records_the_device_and_its_memory(tmp_path) -> None:
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


def test_banner_says_where_a_gpu_computes_attention_sequence_by_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["model=micro", "method=lora", "task=gsm8k", "data.source=embedded", "data.train_limit=8", "device=cpu"]
    config = compose_run(words)
    loaded = prepare.load(config, load_model)
    monkeypatch.setattr(banner, "expected_seconds", lambda *_: 1.0)

    def banner_on(dtype: torch.dtype, capability: tuple[int, int]) -> str:
        monkeypatch.setattr(attention, "_capability", lambda _: capability)
        device = Device(torch.device("cuda"), "cuda: a card", dtype, "asked for", 1)
        return banner.banner(config, dataclasses.replace(loaded, device=device), 1, None)

    assert "attention" not in banner.banner(config, loaded, 1, None) + banner_on(torch.bfloat16, (8, 6))
    reason = "a call for each sequence (slower, the same numbers): the one kernel needs"
    assert reason in banner_on(torch.float16, (7, 5))
    assert "this run in float32" in banner_on(torch.float32, (9, 0))
    loaded.model.model.config.attention_dropout = 0.1
    assert "the one kernel drops no attention weights, this model does" in banner_on(torch.bfloat16, (9, 0))


def test_the_banner_says_which_cores_are_used_and_what_else_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["model=micro", "method=lora", "task=gsm8k", "data.source=embedded", "data.train_limit=8", "device=cpu"]
    config = compose_run([*words, "threads=1"])
    loaded = prepare.load(config, load_model)
    monkeypatch.setattr(banner, "expected_seconds", lambda *_: 1.0)
    monkeypatch.setattr(banner, "usable_cores", lambda: 4)

    def said(held: float) -> str:
        monkeypatch.setattr(Load, "others_since", lambda _: held)
        return banner.banner(config, loaded, 1, Load(0.0, 0.0, 0.0))

    assert "1 threads of 4 cores" in said(0.0) and "other work held" not in said(0.0)
    assert "other work held 1000.0 of the" in said(1000.0)
