"""The second stage of a run: all optimizer steps, each logged, with checkpoints and epoch scores in between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sdsbench.core import step_log
from sdsbench.core.errors import Interrupted, TrainingFailed
from sdsbench.core.progress import Progress, forget_peak_memory, peak_memory
from sdsbench.core.record import Memory
from sdsbench.core.step_log import StepLog
from sdsbench.evaluation.validation_loss import mean_loss
from sdsbench.runs.evaluate import evaluate_epoch
from sdsbench.runs.prepare import Prepared
from sdsbench.training import checkpoint
from sdsbench.training.best_step import keep_if_best
from sdsbench.training.loop import StepReport
from sdsbench.training.side_by_side import Member

ROWS_OF_A_PASS = 8  # held-out rows per pass; constant, since another split would change a loss's last bits


@dataclass(frozen=True)
class Trained:
    """A run whose last optimizer step is done."""

    prepared: Prepared


def train(prepared: Prepared) -> Trained:
    """Train from the current step to the last one.

    Raises TrainingFailed if a loss is not finite, Interrupted after a signal (the state is saved).
    """
    forget_peak_memory()
    _repeat_interrupted_epoch(prepared)
    if prepared.state.step < prepared.training.total_steps:  # else it is already trained, for example in a group
        try:
            with training_member(prepared) as member:
                member.training.run(member.state, member.after_step)
        finally:
            note_memory(prepared)
        prepared.run.keeper.write()  # a process that dies in the evaluation leaves the cost of the training
    return Trained(prepared)


@contextmanager
def training_member(prepared: Prepared) -> Iterator[Member]:
    """The run as a Member, whose `after_step` does logging, progress, epoch scores, checkpoints and signals.

    `train` uses it for a single run, sweeps/group.py for several runs that train together.
    """
    run, training, state = prepared.run, prepared.training, prepared.state
    _repeat_interrupted_epoch(prepared)
    with ExitStack() as stack:
        log = stack.enter_context(StepLog(run.folder / "metrics.jsonl"))
        if prepared.probe is not None:
            training = dataclasses.replace(
                training, observer=prepared.probe.watch(training, state, run.folder, log.write)
            )
        evaluation = run.keeper.record.seconds.eval  # that of the untrained model, to predict later ones
        limit = state.micro_limit
        progress = stack.enter_context(Progress("train", training.total_steps, state.step, after=evaluation))

        def after_step(step: StepReport) -> None:
            nonlocal limit
            if state.micro_limit != limit:
                limit = state.micro_limit
                log.write("memory", step.step, micro_tokens=limit)
                run.log(f"step {step.step}: memory is short; from here on in passes of at most {limit} tokens")
            log.write("train", step.step, **step.numbers())
            if step.facts:
                log.write("method", step.step, **step.facts)
            speed = step.tokens / step.seconds
            progress.advance(1, f"loss {step.loss:.4f}  lr {step.lr:.1e}  {speed:,.0f} tok/s")
            if (loss := _held_out_loss(prepared, step.step)) is not None:
                log.write("held_out", step.step, loss=loss)
                keep_if_best(training.model, state, loss)
            try:
                _after_epoch(prepared, step.step)
            except Interrupted:  # the next attempt repeats the interrupted evaluation
                checkpoint.save(run.folder, state, prepared.origin)
                raise
            _save_when_due(prepared, step.step)
            run.stop.raise_if_received(f"the state after step {step.step} is saved; the same command continues")

        try:
            yield Member(training, state, after_step)
        finally:
            run.keeper.record.seconds.train = state.counters.seconds
            run.keeper.record.placing["group_size"] = state.group_size
            run.keeper.record.placing["micro_tokens"] = state.micro_limit or training.micro_tokens


def note_memory(prepared: Prepared) -> None:
    """Put the peak memory so far into the record, or leave an earlier attempt's if that is higher.

    An attempt that only repeats the evaluation needs less memory than the training did.
    """
    record = prepared.run.keeper.record
    if prepared.state.group_size > 1:  # a group's peak memory cannot be charged to one run
        record.memory = None
        return
    size, kind = peak_memory()
    earlier = record.memory.peak_bytes if record.memory is not None and record.memory.kind == kind else 0
    record.memory = Memory(peak_bytes=max(size, prepared.loading_peak, earlier), kind=kind)  # type: ignore[arg-type]


def _held_out_loss(prepared: Prepared, step: int) -> float | None:
    """Loss per target (nats) on the held-out rows at every train.best_every-th step; None at other steps.

    Raises TrainingFailed if it is not finite.
    """
    run, model = prepared.run, prepared.training.model
    every = run.config.train.best_every
    if every is None or step % every != 0:
        return None
    with run.keeper.timed("eval"):
        loss = mean_loss(model, prepared.loaded.family, prepared.loaded.held_out, ROWS_OF_A_PASS)
    model.train()
    if not math.isfinite(loss):
        raise TrainingFailed(f"step {step}: loss {loss} on the rows held out: not finite. Try a lower train.lr.")
    return loss


def _after_epoch(prepared: Prepared, step: int) -> None:
    run = prepared.run
    if run.config.eval.each_epoch and step % prepared.training.order.steps_per_epoch == 0:
        with run.keeper.timed("eval"):
            evaluate_epoch(run, prepared.loaded, step)


def _repeat_interrupted_epoch(prepared: Prepared) -> None:
    """Score the epoch that ends with the current step if its evaluation was interrupted."""
    log, step = prepared.run.folder / "metrics.jsonl", prepared.state.step
    scored = {line["evaluation"] for line in step_log.scores(log, "best_epoch") if line["step"] == step}
    missing = {evaluation.name for evaluation, _ in prepared.loaded.data.evaluations} - scored
    if step > 0 and missing:
        step_log.drop_scores(log, "best_epoch", step)
        _after_epoch(prepared, step)


def _save_when_due(prepared: Prepared, step: int) -> None:
    run, last = prepared.run, prepared.training.total_steps
    if step % run.config.train.checkpoint_every == 0 or step == last or run.stop.received is not None:
        checkpoint.save(run.folder, prepared.state, prepared.origin)
