"""The last stage of a run: save the trained tensors, evaluate the trained model, complete the record."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sdsbench.core import step_log
from sdsbench.core.record import Losses, Record, Tokens
from sdsbench.methods.export import save_adapter
from sdsbench.runs.evaluate import (
    best_epoch,
    best_epoch_steps,
    evaluate,
    evaluate_along,
    scores_of_stage,
    validation_loss,
)
from sdsbench.runs.prepare import Prepared
from sdsbench.runs.train import Trained, note_memory
from sdsbench.training import checkpoint
from sdsbench.training.best_step import put_back


def finish(trained: Trained) -> Record:
    """Save the trained tensors, evaluate the model, and write scores, losses, tokens and memory to the record."""
    prepared = trained.prepared
    run, config = prepared.run, prepared.run.config
    _restore_best_step(prepared)
    _save_trained(prepared)
    stage = "validation" if config.eval.split == "validation" else "trained"
    step_log.drop_scores(run.folder / "metrics.jsonl", stage)  # left by an interrupted evaluation
    with run.keeper.timed("eval"):
        evaluate(run, prepared.loaded, stage, prepared.state.step)
        if config.eval.along:
            step_log.drop_scores(run.folder / "metrics.jsonl", "along")
            evaluate_along(run, prepared.loaded, prepared.base, prepared.state.step)
        loss = validation_loss(run, prepared.loaded)
    _complete(prepared, stage, loss)
    run.keeper.end()
    checkpoint.remove_all(run.folder)
    return run.keeper.record


def _restore_best_step(prepared: Prepared) -> None:
    """Restore the best step of train.best_every; print a message if no step was evaluated for it."""
    run, state = prepared.run, prepared.state
    if state.best is not None:
        put_back(prepared.training.model, state)
        run.keeper.record.facts |= {"best_step": float(state.best.step), "best_step_loss": state.best.loss}
        run.log(f"the best step by the loss on rows held out is {state.best.step} of {state.step}")
    elif (every := run.config.train.best_every) is not None:
        run.log(f"train.best_every={every} is more than the {state.step} steps: the last step counts")


def _save_trained(prepared: Prepared) -> None:
    """Save the trained tensors that train.save selects."""
    save, state = prepared.run.config.train.save, prepared.state
    if save == "all" or (save == "adapter" and not state.method.trains_base):
        others = other_trained(prepared.training.model, state.layers) | state.frozen_tensors()
        save_adapter(prepared.run.folder / "adapter", state.layers, state.method, others)


def other_trained(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Trained tensors outside the adapted layers: a classifier head, weights of the base, a method's own layers."""
    adapted = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in adapted)
    return {name: parameter.detach() for name, parameter in trained}


def _complete(prepared: Prepared, stage: str, validation_loss: float | None) -> None:
    run, record, counters = prepared.run, prepared.run.keeper.record, prepared.state.counters
    best = list(best_epoch(run).values())
    after = [score for which in (stage, "along") for score in scores_of_stage(run, which)]
    record.scores = [*scores_of_stage(run, "untrained"), *best, *after]
    steps_per_epoch = prepared.training.order.steps_per_epoch
    for evaluation, step in best_epoch_steps(run).items():
        record.facts[f"best_epoch.{evaluation}"] = step / steps_per_epoch
    losses = [line["loss"] for line in step_log.read(run.folder / "metrics.jsonl") if line["kind"] == "train"]
    tail = losses[-max(1, len(losses) // 10) :]
    record.losses = Losses(
        first=losses[0],
        last=losses[-1],
        tail_mean=sum(tail) / len(tail),
        steps=len(losses),
        validation=validation_loss,
    )
    record.tokens = Tokens(
        trained=counters.tokens, targets=counters.targets, padding_share=1 - counters.tokens / counters.positions
    )
    # The process that made the last steps may have died before it recorded their cost; the checkpoint has it.
    record.seconds.train = counters.seconds
    record.placing["group_size"] = prepared.state.group_size
    record.placing.setdefault("micro_tokens", prepared.state.micro_limit or prepared.training.micro_tokens)
    note_memory(prepared)
