"""The contract of a method, checked on a small model: the properties that comparisons of methods rely on.

| point | what is demanded |
|---|---|
| start | a measured fact without a demand: how far the losses before the first step are from the base model's |
| past | decoders: the logits of the first half of a text do not change when later tokens change |
| packed | several examples in one pass have the loss that they have one after the other |
| gradients | those of the adapted model in float64 equal central differences, along each tensor |
| randomness | neither preparing nor training moves the global generators of torch, numpy and Python |
| resume | stopped after any step and started again: losses and trained tensors bitwise those of an uninterrupted run |
| group | trained side by side with another seed: the losses of the run alone (where the method may share a base) |
| export | the folder for the peft library gives the outputs of the trained model |
| memory | the estimate of a step's memory is at least the peak measured on the CPU, and at most 5 % above it |
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sdsbench.checks.finding import Finding, findings
from sdsbench.checks.forward import change_by_packing, change_of_past, logits_of
from sdsbench.core import step_log
from sdsbench.core.errors import Interrupted, Refused
from sdsbench.methods import base as methods
from sdsbench.models.load import load as load_model
from sdsbench.runs.configuration.identity import with_values
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.execute import execute
from sdsbench.runs.export import export as export_run
from sdsbench.runs.export import trained_model
from sdsbench.runs.measured_memory import measured_bytes
from sdsbench.runs.memory import Batch, training_bytes
from sdsbench.runs.prepare import Loaded, attach_method, load, ready_to_train, start_method
from sdsbench.runs.run_context import RunContext
from sdsbench.sweeps.group import SharedBase, group_key
from sdsbench.tasks import base as tasks
from sdsbench.tasks.base import Kind, TextTaskConfig
from sdsbench.training.loop import Training
from sdsbench.training.side_by_side import Member, SideBySide
from sdsbench.training.signals import StopRequest
from sdsbench.training.state import TrainState
from sdsbench.training.whole_steps import add_noise

STEPS = 4
SMALL = {
    "train.max_steps": STEPS, "train.batch_size": 4, "train.checkpoint_every": 1, "train.save": "all",
    "data.train_limit": 32, "eval.limit": 2, "eval.untrained": False, "device": "cpu", "dtype": "float32",
    "force": False,
}  # fmt: skip
STEP = 0.05  # of the central differences, relative to the size of a tensor
CLOSE = 0.1
"""Largest accepted relative error of a derivative. A missing, doubled or wrongly scaled term exceeds it. The finite
step, and norms and softmax in float32, cause errors of up to 0.04 for queries and keys."""
NOISE = 1e-2  # smaller derivatives, relative to the largest, are lost in float32 rounding
SAME_LOSS = 1e-5
PERTURBATION = 0.02  # standard deviation of the noise that moves trained tensors away from a start at zero
LONGEST = 64  # tokens of the text whose past is compared
TOKENS = 64  # of each example whose memory is counted
MEMORY = 1.05  # largest accepted ratio of counted to measured bytes


def check_method(config: RunConfig, folder: Path) -> Iterator[Finding]:
    """Check every point of the contract for the configuration's method on its model and task; writes runs below
    `folder`."""
    config = small(config)
    yield from findings(
        {
            "start": lambda: start(config),
            "past": lambda: past(config),
            "packed": lambda: packed(config),
            "gradients": lambda: gradients(config),
            "randomness": lambda: randomness(config),
            "resume": lambda: resume(config, folder),
            "group": lambda: group(config),
            "export": lambda: export(config, folder),
            "memory": lambda: memory(config),
        }
    )


def small(config: RunConfig) -> RunConfig:
    """The configuration with few rows, steps and generated tokens."""
    answer = {"task.max_new_tokens": 4} if isinstance(config.task, TextTaskConfig) else {}
    return resolve_source(with_values(config, SMALL | answer))[0]


def start(config: RunConfig) -> Finding:
    """Measure how far the outputs before the first step are from those of the base model."""
    loaded = load(config, load_model)
    before = _losses(loaded, loaded.model.model)
    training, _ = ready_to_train(config)
    after = _losses(loaded, training.model.eval())
    distance = float((before - after).abs().max() / before.abs().max())
    where = "at the base weights" if distance == 0 else f"{distance:.2g} from the base model's losses (relative)"
    return Finding("start", None, f"starts {where}")


def past(config: RunConfig) -> Finding:
    """Compare the logits of the first half of a text before and after its later tokens change."""
    if tasks.lookup(config.task.name)[0].kind != "text":
        return Finding("past", None, "the model's outputs may depend on the whole input")
    training = _perturbed(config)
    ids = max(training.examples, key=lambda example: example.length).ids[:LONGEST]
    change = change_of_past(training.model, ids) / float(logits_of(training.model, torch.tensor([ids])).abs().max())
    return Finding("past", change < SAME_LOSS, f"later tokens change logits by {change:.1e} (relative)")


def packed(config: RunConfig) -> Finding:
    """Compare the loss of three examples in one pass with their losses one after the other."""
    training = _perturbed(config)
    rows = min(3, len(training.examples))
    change = change_by_packing(training, [training.examples[number] for number in range(rows)])
    return Finding("packed", change < SAME_LOSS, f"relative difference of the loss {change:.1e}")


def _perturbed(config: RunConfig) -> Training:
    """A run at step 0 whose trained tensors were moved away from a start at which the method may change nothing."""
    training, _ = ready_to_train(config)
    add_noise(_trained(training.model).values(), PERTURBATION, torch.Generator().manual_seed(0))
    return training


def _trained(model: Any) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(config: RunConfig) -> Finding:
    """Compare gradients of the loss with central differences in float64; reports parts of the forward pass held
    constant."""
    kind = methods.lookup(config.method.name)[0]
    if not kind.exact_gradient:
        return Finding("gradients", None, "the method holds a part of the forward pass constant in its backward pass")
    training, _ = ready_to_train(config)
    model, generator = training.model.double().eval(), torch.Generator().manual_seed(0)  # eval: without dropout
    trained = _trained(model)
    inputs = _random_inputs(tasks.lookup(config.task.name)[0].kind, model.config, generator)
    weights = torch.randn(model(**inputs).logits.shape, generator=generator, dtype=torch.float64)
    add_noise(trained.values(), PERTURBATION, generator)

    def loss() -> Tensor:
        """A scalar that depends on every output."""
        return (model(**inputs).logits * weights).mean()

    found = torch.autograd.grad(loss(), list(trained.values()), allow_unused=True)
    differences, sizes = {}, {}
    for (name, parameter), gradient in zip(trained.items(), found, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        gradient = torch.zeros_like(parameter) if gradient is None else gradient
        measured = _central_difference(loss, parameter, direction)
        differences[name] = abs(float((gradient * direction).sum()) - measured)
        sizes[name] = max(abs(measured), float(gradient.norm() * direction.norm()) / parameter.numel() ** 0.5)
    least = NOISE * max(sizes.values())
    errors = {name: difference / max(sizes[name], least) for name, difference in differences.items()}
    which = max(errors, key=lambda name: errors[name])
    worst, text = errors[which], f"{len(trained)} tensors, largest relative error {errors[which]:.1e} ({which})"
    return Finding("gradients", worst < CLOSE, text)


def _random_inputs(kind: Kind, facts: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """A random image for tasks of vision, else a sentence of random tokens."""
    if kind == "vision":
        shape = (1, facts.num_channels, facts.image_size, facts.image_size)
        return {"pixel_values": torch.randn(shape, generator=generator, dtype=torch.float64)}
    return {"input_ids": torch.randint(facts.vocab_size, (1, 16), generator=generator)}


@torch.no_grad()
def _central_difference(loss: Callable[[], Tensor], parameter: Tensor, direction: Tensor) -> float:
    """The derivative along a direction, from two step sizes, so that the error of second order in the step cancels."""
    largest = STEP * float(parameter.abs().mean() + 1e-3)
    slopes = []
    for step in (largest, largest / 2):
        values = []
        for sign in (1, -1):
            parameter.add_(direction, alpha=sign * step)
            values.append(float(loss()))
            parameter.sub_(direction, alpha=sign * step)
        slopes.append((values[0] - values[1]) / (2 * step))
    return (4 * slopes[1] - slopes[0]) / 3


def randomness(config: RunConfig) -> Finding:
    """Compare the global generators before and after preparing and three training steps."""
    before = _global_generators()
    training, state = ready_to_train(config)
    for _ in range(3):
        training.step(state)
    moved = [name for name, value in _global_generators().items() if value != before[name]]
    return Finding("randomness", not moved, f"moved: {', '.join(moved)}" if moved else "global generators untouched")


def _global_generators() -> dict[str, str]:
    return {
        "torch": str(torch.random.get_rng_state().tolist()),
        "numpy": str(np.random.get_state()),
        "random": str(random.getstate()),
    }


class _StopAfter(StopRequest):
    """A stop request that comes during an optimizer step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def raise_if_received(self, saved: str) -> None:
        if f"after step {self._step} is saved" in saved:
            raise Interrupted(saved)


def resume(config: RunConfig, folder: Path) -> Finding:
    """Compare a run stopped after its second step and resumed with an uninterrupted run."""
    whole = _run(config, folder / "whole")
    cut = with_values(config, {"output_root": str(folder / "cut")})
    try:
        execute(cut, RunContext(log=_quiet, stop=_StopAfter(2)))
        return Finding("resume", False, "the run did not stop")
    except Interrupted:
        pass
    again = _run(config, folder / "cut")
    if _step_losses(whole) != _step_losses(again):
        return Finding("resume", False, f"losses {_step_losses(whole)}, resumed {_step_losses(again)}")
    one, two = (load_file(run / "adapter" / "adapter.safetensors") for run in (whole, again))
    differing = [name for name in one if not torch.equal(one[name], two[name])]
    return Finding("resume", not differing, f"differing: {', '.join(differing)}" if differing else "bitwise equal")


def group(config: RunConfig) -> Finding:
    """Compare two seeds trained side by side on one base with each seed trained alone."""
    if group_key(config) is None:
        return Finding("group", None, "the method trains alone (it does not leave the base as it is, or a head trains)")
    configs = [with_values(config, {"seeds.init": seed, "seeds.data": seed, "seeds.dropout": seed}) for seed in (0, 1)]
    alone = [_train(*ready_to_train(each)) for each in configs]
    base, members = SharedBase(load_model), []
    for each in configs:
        loaded = load(each, base)
        training, state, _, _ = attach_method(each, loaded)
        start_method(each, loaded.model, training, state)
        if base.restore(thorough=True):
            return Finding("group", None, "the method writes into the base weights: sweeps let it train alone")
        members.append(Member(training, state))
    together: list[list[float]] = [[], []]
    joint = SideBySide(base.model, members, base.restore)
    for _ in range(STEPS):
        for losses, report in zip(together, joint.step(), strict=True):
            losses.append(report.loss)
    pairs = zip([loss for run in alone for loss in run], [loss for run in together for loss in run], strict=True)
    worst = max(abs(one - two) / abs(one) for one, two in pairs)
    return Finding("group", worst < SAME_LOSS, f"largest relative difference of losses {worst:.1e}")


def export(config: RunConfig, folder: Path) -> Finding:
    """Compare the exported adapter, loaded by the peft library on the base model, with the trained model."""
    if importlib.util.find_spec("peft") is None:
        return Finding("export", None, "not checked: peft is not installed; pip install 'sdsbench[peft]'")
    from peft import PeftModel

    run = _run(config, folder / "whole")
    try:
        export_run(run, folder / "peft", "peft")
    except Refused as error:
        return Finding("export", None, str(error))
    loaded = load(config, load_model)
    expected = _losses(loaded, trained_model(config, run)[0].model.eval())
    theirs = PeftModel.from_pretrained(loaded.model.model, folder / "peft").eval()
    found = _losses(loaded, theirs.get_base_model())
    difference = float((found - expected).abs().max() / expected.abs().max())
    return Finding("export", difference < SAME_LOSS, f"largest relative difference of losses {difference:.1e}")


def memory(config: RunConfig) -> Finding:
    """Compare the estimate of a step's memory with the peak measured in a step on the CPU."""
    batch = Batch((TOKENS,) * config.train.batch_size, 0.5)
    counted = training_bytes(config, batch, "float32")
    if counted is None:
        return Finding("memory", None, "not counted: a step cannot be made without the weights' values")
    if config.train.recomputes:  # on the CPU, what goes to main memory is among the measured bytes
        return Finding("memory", None, f"{counted / 1e6:.1f} MB counted, not measured with activation checkpointing")
    measured = measured_bytes(config, batch)
    text = f"{counted / 1e6:.1f} MB counted, {measured / 1e6:.1f} MB measured"
    return Finding("memory", measured <= counted <= MEMORY * measured, text)


def _run(config: RunConfig, root: Path) -> Path:
    record = execute(with_values(config, {"output_root": str(root)}), RunContext(log=_quiet))
    return root / record.run_id


def _quiet(_: str) -> None:
    """Suppress the output of a check's runs."""


def _step_losses(run: Path) -> list[float]:
    return [line["loss"] for line in step_log.read(run / "metrics.jsonl") if line["kind"] == "train"]


def _train(training: Training, state: TrainState) -> list[float]:
    return [training.step(state).loss for _ in range(STEPS)]


@torch.no_grad()
def _losses(loaded: Loaded, model: Any) -> Tensor:
    """The loss of each of the first training examples."""
    device = loaded.device.device
    return torch.stack([loaded.family.loss(model, [example], device) for example in loaded.examples[:4]]).cpu()
