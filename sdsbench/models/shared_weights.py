"""Base weights that stay in memory between the runs of one process."""

from __future__ import annotations

import copy
from typing import Any

from sdsbench.core.lazy import torch
from sdsbench.models.load import LoadedModel, load
from sdsbench.models.model_config import ModelConfig


class SharedWeights:
    """Calls `load` and keeps the last model, so that consecutive runs of the same model read its files once.

    Each run gets its own copy, since methods may change base weights (PiSSA, full fine-tuning). Costs the model's size
    in main memory.
    """

    def __init__(self) -> None:
        self.reads = 0
        self._key: Any = None
        self._kept: LoadedModel | None = None

    def __call__(
        self, config: ModelConfig, dtype: torch.dtype, num_labels: int | None = None, device: str | torch.device = "cpu"
    ) -> LoadedModel:
        """A separate copy of the model for one run; arguments and errors are those of `load`."""
        key = (config, dtype, num_labels)
        if self._kept is None or key != self._key:
            self._kept = None  # before loading, since memory may not hold two models
            self._kept, self._key = load(config, dtype, num_labels), key
            self.reads += 1
        kept = self._kept
        return LoadedModel(copy.deepcopy(kept.model).to(device), kept.tokenizer, kept.weights, kept.folder)
