"""The peak of memory that a record names is the run's, not that of whatever ran in its process before."""

from __future__ import annotations

import pytest
import torch

from sdsbench.core import progress

SIZE = 200_000_000


def test_the_peak_starts_anew() -> None:
    large = torch.ones(SIZE // 4)
    before, kind = progress.peak_memory()
    assert large.numel() and kind in ("rss", "cuda_allocated")
    del large
    progress.forget_peak_memory()
    after, _ = progress.peak_memory()
    if kind != "rss" or not progress.CLEAR.exists():
        pytest.skip("CUDA counts its own memory; without /proc the peak is the process's")
    assert after < before - SIZE // 2


def test_without_proc_the_peak_is_the_process_own(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("STATUS", "CLEAR"):
        monkeypatch.setattr(progress, name, tmp_path / "absent" / "file")
    progress.forget_peak_memory()
    size, kind = progress.peak_memory()
    assert size > 1_000_000 and kind in ("rss", "cuda_allocated")
