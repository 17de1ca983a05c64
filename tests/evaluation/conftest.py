"""The model `micro`, and the lines that generation prints."""

from __future__ import annotations

import pytest
import torch

from sdsbench.evaluation import decoding
from sdsbench.models.load import load
from sdsbench.runs.configuration.compose import compose_run


@pytest.fixture(scope="module")
def micro(device: str):
    """The model in fp32, in which answers can be compared exactly."""
    config = compose_run(["model=micro", "method=lora", "task=gsm8k"]).model
    return load(config, torch.float32, device=torch.device(device))


@pytest.fixture(scope="module")
def cpu_micro():
    """The same on the CPU, for tests that put tensors there or count its operations."""
    return load(compose_run(["model=micro", "method=lora", "task=gsm8k"]).model, torch.float32)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that generation prints, which it does once per process."""
    printed: list[str] = []
    decoding.log_once.cache_clear()
    monkeypatch.setattr(decoding, "print_now", printed.append)
    return printed
