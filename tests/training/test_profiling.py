"""`sdsbench profile`: shares of a step add up to 100 %; counters of saved and live bytes are exact."""

from __future__ import annotations

import weakref

import pytest
import torch

from sdsbench.__main__ import main
from sdsbench.training.saved_bytes import PeakBytes, SavedBytes, saved_bytes


def test_saved_bytes_count_storages_once() -> None:
    x = torch.ones(1000, requires_grad=True)
    counter = SavedBytes([x])
    with counter.counting():
        y = x * 2
        y.sin() + y.view(10, 100).cos().view(-1)  # both keep y; x is given to the counter and so not counted
    assert counter.total == 4000


def test_peak_bytes_follow_live_tensors() -> None:
    with PeakBytes() as peak:
        kept = torch.ones(1000)
        for _ in range(5):
            temporary = kept * 2
            del temporary
        view = kept.view(10, 100)
    assert view.numel() == 1000
    assert (peak.peak, peak.now) == (8000, 4000)


def test_peak_bytes_include_tensors_kept_for_backward() -> None:
    with PeakBytes() as peak:
        x = torch.ones(1000, requires_grad=True)
        y = (x * 2).sin()
        assert peak.now == 12000  # x, x * 2 (kept by sin), y
        del y
        assert peak.now == 4000


@pytest.mark.parametrize("method", ("sds_lora", "full_ft"))
def test_profile_command_prints_times_and_memory(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"method={method}", "model=micro", "task=gsm8k", "data.source=embedded", "threads=1"]
    assert main(["profile", *overrides, "train.batch_size=2", "--steps", "1"]) == 0
    text = capsys.readouterr().out
    shares = [float(line.split("%")[0].split()[-1]) for line in text.splitlines() if "%" in line]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert "attention" in text and "saved for backward" in text
    adapted = next(line for line in text.splitlines() if line.startswith("adapted layers"))
    assert ("  0.0 %" in adapted) == (method == "full_ft")


def test_counting_saved_bytes_keeps_no_tensor_alive() -> None:
    """The counter must not keep graph nodes alive that save their own output, such as exp."""
    x = torch.ones(1000, requires_grad=True)
    outputs = []

    def forward() -> torch.Tensor:
        y = x.exp()
        outputs.append(weakref.ref(y.untyped_storage()))
        return y.sum()

    assert saved_bytes(torch.nn.Module(), forward) == 4000
    assert outputs[0]() is None
