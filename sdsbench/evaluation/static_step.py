"""A step of decoding whose shapes and addresses do not change, so that CUDA can record it once and replay it.

Launching the kernels of a token one by one from Python can take longer than computing them. Here attention reads a
whole bucket of columns, those that are not in use masked, and what differs from token to token is in tensors that stay
where they are: the newest tokens, their positions, the mask, the index of the newest column. On CUDA the first step in
a bucket is launched as usual, which also warms up what libraries set up at first use; at the second it is captured as
a graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs), and from then on replayed. Elsewhere every
step is launched, which is how the tests prove its logic.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Cache

from sdsbench.evaluation.key_value_cache import ReservedLayer, static_cache

Steps = Literal["plain", "static", "captured"]
"""How tokens are made: `plain` as the model's library does; `static` by static steps that are launched one by one;
`captured` by static steps that are replayed from CUDA graphs (static elsewhere). The answers are the same; in 16 bits
up to rounding, since sums over more columns are taken in another order."""

ON_CUDA: Steps = "captured"
"""What is done on CUDA: the GPU suite compares both on a device (docs/speed.md says on which)."""

BUCKET = 128  # columns: each bucket is captured once, and a step reads at most so many columns in vain
_MASKS = ("sdpa", "eager")  # attention that adds a mask of rows x 1 x 1 x columns to its scores

Logits = Callable[[Tensor, Tensor, Tensor, Cache], Tensor]
"""Of (tokens b x 1, mask, positions b x 1, cache): logits b x V of the tokens that follow."""


def default_steps(device: torch.device) -> Steps:
    """On a CPU launching is cheap and columns that are read in vain are not."""
    return ON_CUDA if device.type == "cuda" else "plain"


def why_plain(model: Any, cache: Cache) -> str | None:
    """Why a model's steps cannot be static; None where they may be."""
    if not all(isinstance(layer, ReservedLayer) for layer in cache.layers):
        return "layers with a short window, or a state of another kind, place their columns themselves"
    attention = model.config._attn_implementation
    return None if attention in _MASKS else f"{attention} attention takes no mask of columns"


class StaticStep:
    """Steps of a batch: tokens (b), positions (b x 1), mask (b x capacity) and cache are read and written in place.

    Graphs are of these very tensors and of the model's weights: they live as long as the batch, which is a whole
    evaluation, since rows that end are replaced. So capturing is paid once a bucket.
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
        self._warm: set[int] = set()  # buckets in which a step was launched
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if self.captured:
            self._stream, self._pool = torch.cuda.Stream(tokens.device), torch.cuda.graph_pool_handle()

    def logits(self, columns: int) -> Tensor:
        """Logits (b x V) after the newest tokens, which get the last of `columns`; tokens and positions stay.

        At least one column is read in vain: a model that takes the columns it reads for those in use shows it here.
        """
        self.newest.fill_(columns - 1)
        return self._forward(self._bucket(columns + 1), self.positions + 1)

    def __call__(self, columns: int) -> None:
        """Make the next token of every row. Where it raises, tokens and positions are as before."""
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
        """The columns that a step reads."""
        return min(-(-columns // BUCKET) * BUCKET, self.mask.shape[1])

    def _step(self, bucket: int) -> None:
        """All of it is kernels: no value is read back and nothing is copied from main memory."""
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
        """A step on the stream of the captures; what would make the host wait, which no capture survives, raises."""
        here = torch.cuda.current_stream(self.tokens.device)
        self._stream.wait_stream(here)
        try:
            with torch.cuda.stream(self._stream), _waiting_raises():
                self._step(bucket)
        finally:
            here.wait_stream(self._stream)

    def _capture(self, bucket: int) -> torch.cuda.CUDAGraph:
        """The graph of a step; nothing is computed. All graphs share their memory: none outlives a replay in it."""
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        try:
            with torch.cuda.stream(self._stream), capture:  # the outer one goes back also where a capture fails
                self._step(bucket)
        except Exception:
            # Where a capture fails, torch goes on taking its random generator for one that is being captured.
            generator = torch.cuda.default_generators[self._stream.device_index]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return graph


@contextmanager
def _waiting_raises() -> Iterator[None]:
    """Inside, operations of torch for which the host waits for the device raise RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that its check does not know all such operations
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
