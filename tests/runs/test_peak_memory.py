"""The peak memory in a record is the run's own, not that of earlier work in the same process."""

from __future__ import annotations

import pytest
import torch

from sdsbench.core import progress

SIZE = 200_000_000


def test_forgetting_the_peak_starts_a_new_measurement() -> None:
    large = torch.ones(SIZE // 4)
    before, kind = progress.peak_memory()
    assert large.numel() and kind in ("rss", "cuda_allocated")
    del large
    progress.forget_peak_memory()
    after, _ = progress.peak_memory()
    if kind != "rss" or not progress.CLEAR.exists():
        pytest.skip("CUDA counts its own memory; without /proc the peak is that of the process")
    assert after < before - SIZE // 2


def test_without_proc_the_peak_of_the_process_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("STATUS", "CLEAR"):
        monkeypatch.setattr(progress, name, tmp_path / "absent" / "file")
    progress.forget_peak_memory()
    size, kind = progress.peak_memory()
    assert size > 1_000_000 and kind in ("rss", "cuda_allocated")
