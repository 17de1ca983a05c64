"""Estimate a run's time and memory: an analytic cost model, rescaled by measured times of finished runs.

For the reference card and N weights used by every token (linear layers, a decoder's output layer):

    training    4 N FLOPs per token (frozen weights have no gradient) / RATE, times the method's relative_time
    generation  each step reads the weights once (N x bytes / BANDWIDTH); each prompt or generated token takes 2 N
                FLOPs / RATE; a batch takes as many steps as its longest answer (workload.py), with an untrained model
                up to the limit of new tokens
    scoring     one forward pass, 2 N FLOPs per token / RATE

summed over all evaluations of the task: after training, after every epoch (eval.each_epoch) and before training
(eval.untrained). Numbers of rows and tokens are those of the public data sets (data/sizes.py).

Memory is the minimum that the run needs: that of the smallest pass into which its steps can be split (workload.py),
counted for the step itself, plus that of CUDA and its libraries (runs/memory.py). With more memory, the run uses larger
passes.

If there are finished runs of the same model on the same kind of device, seconds are multiplied by the median of
measured / modelled time. On a CPU without such runs, RATE and BANDWIDTH are measured on a short step (step_time.py).
Only counting memory and measuring import torch, so that the time on the reference card is estimated at once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from sdsbench.core.record import Record
from sdsbench.methods import base as methods
from sdsbench.runs.configuration.combinations import KnownArchitecture, known_architecture
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.memory import USABLE, Batch, needed_bytes, training_bytes
from sdsbench.sweeps.workload import Scoring, Workload, workload

RATE = {"bfloat16": 28e12, "float32": 12e12}  # FLOPs per second that training reaches on the reference card
BANDWIDTH = 768e9  # memory bandwidth of the reference card, bytes per second
BYTES = {"bfloat16": 2, "float32": 4}
CARDS = {"A6000 48 GB": 48e9, "24 GB (RTX 3090/4090)": 24e9, "80 GB (A100/H100)": 80e9}  # name -> bytes
REFERENCE = "A6000 48 GB"


SMALL_FOR_A_CPU = 1e9  # weights; larger models are measured on a CPU only if device=cpu is set


@dataclass(frozen=True)
class Speed:
    """Speed of a device in one number format."""

    rate: float  # FLOPs per second in training
    bandwidth: float  # bytes of weights that generation reads per second
    bytes: int  # size of one number


@dataclass(frozen=True)
class Cost:
    """Estimated cost of one run: seconds (`measured`: rescaled by finished runs) and bytes of memory, if counted."""

    seconds: float
    bytes: float | None
    measured: bool = False


def fits(size: float) -> dict[str, bool]:
    """For each card, whether a run that needs `size` bytes fits its memory."""
    return {name: size <= memory * USABLE for name, memory in CARDS.items()}


def passed_weights(config: RunConfig, known: KnownArchitecture) -> int:
    """Number of weights that every token is multiplied with: the linear layers and a decoder's output layer."""
    layers = sum(m * n for m, n in known.shapes.values())
    return layers + (
        known.config_json["vocab_size"] * known.config_json["hidden_size"] if config.model.family == "decoder" else 0
    )


def modelled(config: RunConfig, memory: bool) -> Cost | None:
    """The modelled cost on the reference card; None if the architecture is unknown before download."""
    known = known_architecture(config.model)
    if known is None:
        return None
    work, kind = workload(config, known.config_json), compute_type(config)
    speed = Speed(RATE[kind], BANDWIDTH, BYTES[kind])
    seconds = _seconds(config, passed_weights(config, known), work, speed)
    return Cost(seconds, step_bytes(config, work) if memory else None)


def measured_here(config: RunConfig) -> Cost | None:
    """The cost on this machine's CPU, from a measured short step; None if unknown or the model is too large."""
    from sdsbench.sweeps.step_time import cpu_speed

    known = known_architecture(config.model)
    if known is None:
        return None
    weights, work = passed_weights(config, known), workload(config, known.config_json)
    if weights > SMALL_FOR_A_CPU and config.device != "cpu":
        return None
    speed = cpu_speed(config, known, work)
    return None if speed is None else Cost(_seconds(config, weights, work, speed), None)


def disk_bytes(config: RunConfig) -> float | None:
    """Upper bound of a run folder's bytes: fp32 tensors, 400 bytes per answer, 200 per step; None if unknown."""
    known = known_architecture(config.model)
    if known is None:
        return None
    work, rank = workload(config, known.config_json), getattr(config.method, "rank", None)
    # Frozen factors count too, since LoRA-XS and LoRA-SB save them.
    kept = sum(m * n if rank is None else rank * (m + n) for m, n in known.shapes.values())
    return 4 * kept + 400 * work.answers + 200 * work.steps


def compute_type(config: RunConfig) -> str:
    """The number format of the run on a card that supports bfloat16."""
    return "bfloat16" if config.dtype == "auto" else config.dtype


def _seconds(config: RunConfig, weights: int, work: Workload, speed: Speed) -> float:
    slower = methods.lookup(config.method.name)[0].relative_time
    training = work.trained_rows * work.tokens * 4 * weights / speed.rate * slower
    passes = ((True, work.trained_passes), (False, work.untrained_passes))
    return training + sum(
        count * _scoring_seconds(config, weights, scoring, trained, speed)
        for trained, count in passes
        for scoring in work.scorings
    )


def _scoring_seconds(config: RunConfig, weights: int, scoring: Scoring, trained: bool, speed: Speed) -> float:
    tokens = scoring.rows * (scoring.prompt + scoring.written(trained))
    batches = math.ceil(scoring.rows / config.eval.batch_size)
    reading = batches * scoring.steps(trained) * weights * speed.bytes / speed.bandwidth
    return tokens * 2 * weights / speed.rate + reading


def step_bytes(config: RunConfig, work: Workload) -> float | None:
    """Bytes of GPU memory of a step that is split into the smallest passes; None if unknown."""
    counted = training_bytes(config, Batch(tuple(work.smallest_pass()), work.targets), compute_type(config))
    return None if counted is None else needed_bytes(counted)


class Estimator:
    """Rescales modelled times by those measured in finished runs, per model and kind of device (cpu or cuda)."""

    def __init__(self, finished: Iterable[tuple[RunConfig, Record]], memory: bool) -> None:
        self._memory = memory
        self._ratios: dict[tuple[str, str], list[float]] = {}
        for config, record in finished:
            raw = modelled(config, memory=False)
            if raw is None or record.provenance is None:
                continue
            key = (record.provenance.device_kind, record.model)
            self._ratios.setdefault(key, []).append(sum(vars(record.seconds).values()) / raw.seconds)

    def cost(self, config: RunConfig, kind: str) -> Cost | None:
        """The best available estimate for a run on `kind`; None if nothing is known.

        Without finished runs, "cuda" is the modelled cost on the reference card. A CPU is measured only if the
        estimator also counts memory, since both import torch.
        """
        raw, ratios = modelled(config, self._memory), self._ratios.get((kind, config.model.name))
        if raw is None or not ratios:
            return raw if kind == "cuda" else measured_here(config) if self._memory else None
        return Cost(raw.seconds * statistics.median(ratios), raw.bytes, measured=True)
