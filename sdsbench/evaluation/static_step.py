"""A decoding step with constant shapes and memory addresses, which CUDA can capture as a graph and replay.

Launching the kernels of a token one by one from Python can take longer than computing them. Here attention reads a
fixed number of cache columns (a bucket), with unused columns masked. Everything that differs between tokens is held in
tensors at fixed addresses: the newest tokens, their positions, the mask, the index of the newest column. On CUDA the
first step of a bucket runs without a graph, as a warm-up for libraries; the second is captured as a graph
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) and replayed from then on. On other devices no step
is captured, which lets tests check the same code on a CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Cache

from sdsbench.evaluation.key_value_cache import reserves_all, static_cache

Steps = Literal["plain", "static", "captured"]
"""How decoding steps run: `plain` as in transformers; `static` as static steps without graphs; `captured` as static
steps replayed from CUDA graphs (on other devices like `static`). The answers are equal; in 16 bits up to rounding,
since sums over more columns are computed in another order."""

ON_CUDA: Steps = "captured"
"""Default on CUDA; the GPU test suite compares it with plain steps (docs/speed.md names the devices)."""

BUCKET = 128  # columns per bucket: one graph for each bucket; a step reads fewer than this many unused columns
_MASKS = ("sdpa", "eager")  # attention implementations that accept an additive mask of rows x 1 x 1 x columns

Logits = Callable[[Tensor, Tensor, Tensor, Cache], Tensor]
"""(tokens b x 1, mask, positions b x 1, cache) -> logits b x V of the next tokens."""


def default_steps(device: torch.device) -> Steps:
    """Plain steps on a CPU, where launching is cheap but reading unused columns is not."""
    return ON_CUDA if device.type == "cuda" else "plain"


def reason_against_static_steps(model: Any, cache: Cache) -> str | None:
    """The reason why a model cannot use static steps; None if it may."""
    if not reserves_all(cache):
        return "layers with a short window, or a state of another kind, place their columns themselves"
    attention = model.config._attn_implementation
    return None if attention in _MASKS else f"{attention} attention takes no mask of columns"


class StaticStep:
    """Static steps of a batch; updates tokens (b), positions (b x 1), mask (b x capacity) and cache in place.

    Graphs contain the addresses of these tensors and of the weights, so they are valid as long as the batch. As new
    prompts replace finished rows, a batch lasts a whole evaluation, and each bucket is captured once.
    """

    def __init__(
        self,
        logits: Logits,
        dtype: torch.dtype,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: Cache,
        captured: bool,
    ) -> None:
        self.tokens, self.positions, self.mask, self.dtype = tokens, positions, mask, dtype
        self.newest = torch.zeros(1, dtype=torch.long, device=tokens.device)
        self.cache = static_cache(cache, self.newest)
        self._logits = logits
        self.captured = captured and tokens.device.type == "cuda"
        self._warm: set[int] = set()  # buckets whose warm-up step has run
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if self.captured:
            self._stream, self._pool = torch.cuda.Stream(tokens.device), torch.cuda.graph_pool_handle()

    def logits(self, columns: int) -> Tensor:
        """Logits (b x V) that follow the newest tokens, at the last of `columns`; tokens and positions are unchanged.

        Reads at least one unused column, so that a comparison with plain logits exposes a model that ignores the mask.
        """
        self.newest.fill_(columns - 1)
        return self._forward(self._bucket(columns + 1), self.positions + 1)

    def __call__(self, columns: int) -> None:
        """Compute the next token of every row. If this raises, tokens and positions are unchanged."""
        bucket = self._bucket(columns)
        self.newest.fill_(columns - 1)
        if not self.captured:
            self._step(bucket)
        elif bucket not in self._warm:
            self._warm_up(bucket)
            self._warm.add(bucket)
        else:
            if bucket not in self._graphs:
                self._graphs[bucket] = self._capture(bucket)
            self._graphs[bucket].replay()

    def _bucket(self, columns: int) -> int:
        """Number of columns that a step reads: `columns` rounded up to a multiple of BUCKET, at most the capacity."""
        return min(-(-columns // BUCKET) * BUCKET, self.mask.shape[1])

    def _step(self, bucket: int) -> None:
        """The captured part of a step: kernels only, no value is read back, nothing is copied from main memory."""
        positions = self.positions + 1
        tokens = self._forward(bucket, positions).argmax(dim=-1)
        self.positions.copy_(positions)
        self.tokens.copy_(tokens)

    def _forward(self, bucket: int, positions: Tensor) -> Tensor:
        self.mask.index_fill_(1, self.newest, 1)
        hidden = self.mask[:, None, None, :bucket] == 0
        added = torch.zeros(hidden.shape, dtype=self.dtype, device=hidden.device)
        added.masked_fill_(hidden, torch.finfo(self.dtype).min)
        for layer in self.cache.layers:
            layer.columns = bucket
        return self._logits(self.tokens[:, None], added, positions, self.cache)

    def _warm_up(self, bucket: int) -> None:
        """Run a step on the capture stream; raises if an operation synchronizes with the host, as capturing forbids."""
        here = torch.cuda.current_stream(self.tokens.device)
        self._stream.wait_stream(here)
        try:
            with torch.cuda.stream(self._stream), _synchronization_raises():
                self._step(bucket)
        finally:
            here.wait_stream(self._stream)

    def _capture(self, bucket: int) -> torch.cuda.CUDAGraph:
        """Capture a step as a graph without running it. Graphs share a memory pool; none needs data after a replay."""
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        try:
            with torch.cuda.stream(self._stream), capture:  # the outer context restores the stream if capture fails
                self._step(bucket)
        except Exception:
            # After a failed capture, torch still treats its random generator as being captured; this resets it.
            generator = torch.cuda.default_generators[self._stream.device_index]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return graph


@contextmanager
def _synchronization_raises() -> Iterator[None]:
    """While active, torch operations that make the host wait for the device raise RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hides torch's warning that its check is incomplete
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
