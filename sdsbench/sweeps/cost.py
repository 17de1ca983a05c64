"""What a run will cost: a stated model, corrected by finished runs of the same model on the same kind of device.

Of the reference card, with N weights that every token passes (linear layers, a decoder's output layer):

    training    4 N operations a token (no gradient of frozen weights) / RATE, times the method's relative_time
    generation  a step reads the weights once (N x bytes / BANDWIDTH), every prompt or written token takes 2 N
                operations / RATE; a batch takes as many steps as its longest answer (workload.py), an untrained model
                up to the cap of new tokens
    scoring     one forward pass, 2 N operations a token / RATE

over all evaluations of the task, after training, after every epoch (eval.each_epoch) and before (eval.untrained). Rows
and tokens come from the public sets' sizes (data/sizes.py).

Memory is what the run needs at least: that of the smallest pass that its steps can be cut into (workload.py), counted
of the step itself, with what CUDA and its libraries hold (runs/memory.py). Where a card has more, the run makes larger
passes.

Where finished runs exist, seconds are multiplied by the median of measured / modelled; on a CPU without any, RATE and
BANDWIDTH are those of a short step that is measured (step_time.py). Time is arithmetic; counting memory and measuring
load torch, so who only asks for the reference card's time does not wait for it.
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

RATE = {"bfloat16": 28e12, "float32": 12e12}  # operations a second that training reaches on the reference card
BANDWIDTH = 768e9  # of its memory, bytes a second
BYTES = {"bfloat16": 2, "float32": 4}
CARDS = {"A6000 48 GB": 48e9, "24 GB (RTX 3090/4090)": 24e9, "80 GB (A100/H100)": 80e9}  # name -> bytes
REFERENCE = "A6000 48 GB"


SMALL_FOR_A_CPU = 1e9  # weights; larger models are not measured on a CPU unless device=cpu asks for one


@dataclass(frozen=True)
class Speed:
    """What a device reaches with one kind of numbers."""

    rate: float  # operations a second of training
    bandwidth: float  # bytes of weights a second that generation reads
    bytes: int  # of one number


@dataclass(frozen=True)
class Cost:
    """Of one run. `measured`: seconds corrected by finished runs. `bytes` is None where nobody asked for it."""

    seconds: float
    bytes: float | None
    measured: bool = False


def fits(size: float) -> dict[str, bool]:
    """Whether a run of that many bytes fits each card."""
    return {name: size <= memory * USABLE for name, memory in CARDS.items()}


def passed_weights(config: RunConfig, known: KnownArchitecture) -> int:
    """Weights that every token passes: the linear layers, and a decoder's output layer."""
    layers = sum(m * n for m, n in known.shapes.values())
    return layers + (known.facts["vocab_size"] * known.facts["hidden_size"] if config.model.family == "decoder" else 0)


def modelled(config: RunConfig, memory: bool) -> Cost | None:
    """The uncorrected cost on the reference card; None where the architecture is not known before download."""
    known = known_architecture(config.model)
    if known is None:
        return None
    work, kind = workload(config, known.facts), compute_type(config)
    speed = Speed(RATE[kind], BANDWIDTH, BYTES[kind])
    seconds = _seconds(config, passed_weights(config, known), work, speed)
    return Cost(seconds, step_bytes(config, work) if memory else None)


def measured_here(config: RunConfig) -> Cost | None:
    """The cost on this machine's CPU by a short step; None where that is unknown, or the model too large for a CPU."""
    from sdsbench.sweeps.step_time import cpu_speed

    known = known_architecture(config.model)
    if known is None:
        return None
    weights, work = passed_weights(config, known), workload(config, known.facts)
    if weights > SMALL_FOR_A_CPU and config.device != "cpu":
        return None
    speed = cpu_speed(config, known, work)
    return None if speed is None else Cost(_seconds(config, weights, work, speed), None)


def disk_bytes(config: RunConfig) -> float | None:
    """Bytes of a run's folder at most: its tensors in fp32, 400 bytes an answer, 200 a step; None where unknown."""
    known = known_architecture(config.model)
    if known is None:
        return None
    work, rank = workload(config, known.facts), getattr(config.method, "rank", None)
    # LoRA-XS and LoRA-SB keep their frozen factors too.
    kept = sum(m * n if rank is None else rank * (m + n) for m, n in known.shapes.values())
    return 4 * kept + 400 * work.answers + 200 * work.steps


def compute_type(config: RunConfig) -> str:
    """The type on a card that computes in bfloat16."""
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
    """Memory of a step in the smallest passes, on a GPU."""
    counted = training_bytes(config, Batch(tuple(work.smallest_pass()), work.targets), compute_type(config))
    return None if counted is None else needed_bytes(counted)


class Estimator:
    """Corrects the model by what finished runs of a model took on a kind of device (cpu or cuda)."""

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
        """The best estimate for a run; None where nothing is known. The model alone speaks for the reference card.

        A CPU is only measured by an estimator that counts memory, which loads torch as well.
        """
        raw, ratios = modelled(config, self._memory), self._ratios.get((kind, config.model.name))
        if raw is None or not ratios:
            return raw if kind == "cuda" else measured_here(config) if self._memory else None
        return Cost(raw.seconds * statistics.median(ratios), raw.bytes, measured=True)
