"""The first stage of a run: load data and weights, attach the method, build or restore the training state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import yaml

from sdsbench.core import step_log
from sdsbench.core.files import write_atomic
from sdsbench.core.processor import Load
from sdsbench.core.progress import forget_peak_memory, peak_memory
from sdsbench.core.record import Lengths, Parameters, Provenance
from sdsbench.evaluation.lm_eval_tasks import require_named
from sdsbench.evaluation.vllm_engine.process import python_of, version_of
from sdsbench.methods import base as methods
from sdsbench.models.load import LoadedModel
from sdsbench.models.load import load as load_model
from sdsbench.runs import origin
from sdsbench.runs.banner import banner, trainable
from sdsbench.runs.configuration.combinations import layer_shapes
from sdsbench.runs.configuration.identity import resolved
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.evaluate import evaluate, evaluate_retention
from sdsbench.runs.export import remember_location
from sdsbench.runs.families import Family, family_of
from sdsbench.runs.memory import micro_tokens
from sdsbench.runs.run_context import ActiveRun, LoadModel
from sdsbench.runs.run_data import RunData, load_run
from sdsbench.runs.start_from import adapter_hash, take_over
from sdsbench.runs.tracking import view
from sdsbench.runs.vllm_answers import require_servable
from sdsbench.tasks import base as tasks
from sdsbench.training import checkpoint
from sdsbench.training.assemble import assemble
from sdsbench.training.checkpoint import Checkpoint
from sdsbench.training.data_context import TrainingContext
from sdsbench.training.in_backward import require_torchao
from sdsbench.training.loop import Training
from sdsbench.training.order import DataOrder
from sdsbench.training.parameters import count
from sdsbench.training.precision import Device, select_device
from sdsbench.training.probes.observer import Probe
from sdsbench.training.starting_point import StartingPoint
from sdsbench.training.state import TrainState
from sdsbench.training.whole_steps import reason_for_whole_steps


@dataclass(frozen=True)
class Loaded:
    """The model, data and encoded examples of a run before the method is attached."""

    model: LoadedModel
    data: RunData
    device: Device
    family: Family
    examples: Sequence[Any]
    held_out: Sequence[Any] = ()  # examples that select the best step (train.best_every)

    def lengths(self) -> Lengths | None:
        """Counts of training rows truncated at train.max_length; None for images, which have no length."""
        if (max_length := self.family.max_length) is None:
            return None
        rows = len(self.data.training)
        cut = sum(example.cut for example in self.examples)
        return Lengths(max_length=max_length, rows=rows, cut=cut, dropped=rows - len(self.examples))


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train."""

    run: ActiveRun
    loaded: Loaded
    training: Training
    state: TrainState
    probe: Probe | None
    origin: dict[str, str]  # hashes of code, weights and data (origin.py); stored in every checkpoint
    loading_peak: int  # peak memory of loading, bytes
    base: Mapping[str, torch.Tensor]  # base weights by name if eval.along needs them, else empty


def prepare(run: ActiveRun, resume: Checkpoint | None) -> Prepared:
    """Load data and weights, evaluate the untrained model if requested, attach the method, restore `resume`.

    Raises Unavailable (data or weights), ConfigError (targets or ranks that do not fit the model).
    """
    config, keeper = run.config, run.keeper
    if run.context.tuning is not None:
        keeper.record.tuning = run.context.tuning
    if config.eval.engine == "vllm":
        version_of(python_of(config.eval.vllm_python))
    forget_peak_memory()
    started = Load.now()
    write_atomic(run.folder / "config.yaml", yaml.safe_dump(resolved(config), sort_keys=False))
    remember_location(config, run.folder)
    step_log.cut(run.folder / "metrics.jsonl", resume.step if resume else None)
    view.start(config.tracker, run.folder)
    with keeper.timed("load"):
        loaded = load(config, run.context.load_model)
    run.log(banner(config, loaded, _total_steps(config, loaded), started))
    run.stop.raise_if_received("no step was trained")
    if not step_log.scores(run.folder / "metrics.jsonl", "untrained"):
        with keeper.timed("eval"):
            if config.eval.untrained:
                evaluate(run, loaded, "untrained", step=0)
            else:
                evaluate_retention(run, loaded, "untrained", step=0)
    base = copied(loaded.model.model) if config.eval.along else {}
    with keeper.timed("init"):
        start = StartingPoint(loaded.model.model, loaded.family, loaded.examples, loaded.device.device)
        training, state, probe, parameters = attach_method(config, loaded)
        require_servable(config, state.layers, state.method, loaded.device)
        provenance = _provenance(config, loaded)
        made_from = origin.recorded_origin(provenance)
        if resume is not None:
            checkpoint.load(resume, state)
        else:
            stop = partial(run.stop.raise_if_received, "no step was trained")
            keeper.record.facts |= start_method(config, loaded.model, training, state, stop)
            keeper.record.facts["start_difference"] = start.difference()
            checkpoint.save(run.folder, state, made_from)
    keeper.record.lengths = loaded.lengths()
    keeper.begin_training(parameters, provenance, state.step)
    run.log(trainable(parameters.trainable, training.micro_tokens, training.whole_steps))
    return Prepared(run, loaded, training, state, probe, made_from, peak_memory()[0], base)


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of a model's weights by name, on the CPU."""
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in model.named_parameters()}


def ready_to_train(config: RunConfig) -> tuple[Training, TrainState]:
    """(training loop, state) of a run at step 0, without a record or folder (for `sdsbench profile`)."""
    config, _ = resolve_source(config)
    loaded = load(config, load_model)
    training, state, _, _ = attach_method(config, loaded)
    start_method(config, loaded.model, training, state)
    return training, state


def load(config: RunConfig, read_model: LoadModel) -> Loaded:
    """Load the rows and the weights (on their device), and encode the training rows for the model."""
    if config.train.optimizer == "adamw8bit":
        require_torchao()
    task = tasks.build(config.task)
    data = load_run(config)
    require_named(config.eval.also, config.data.root)
    device = select_device(config.device, config.dtype, config.threads, _adapted_weights(config))
    model = read_model(config.model, device.dtype, task.num_labels, device.device)
    family = family_of(task, model, config)
    examples = family.encode_all(data.training)
    family.check(model.model, examples, device.device)
    held_out = family.encode_all(data.held_out) if data.held_out is not None else ()
    return Loaded(model, data, device, family, examples, held_out)


def attach_method(config: RunConfig, loaded: Loaded) -> tuple[Training, TrainState, Probe | None, Parameters]:
    """Attach the method; return (training loop, resumable state, probe or None, parameter counts)."""
    model = loaded.model.model
    before = sum(parameter.numel() for parameter in model.parameters())
    device, longest = loaded.device, loaded.family.longest(loaded.examples)
    tokens = micro_tokens(config, longest, device.device, str(device.dtype).removeprefix("torch."))
    training, state, head = assemble(
        model, methods.build(config.method), loaded.family, loaded.examples, config.train, config.seeds,
        device.device, micro_tokens=tokens,
    )  # fmt: skip
    if reason := reason_for_whole_steps(training, state):
        training = replace(training, whole_steps=reason, micro_tokens=None)
    probe = Probe(config.probe, model, state.layers, state.method) if config.probe.every is not None else None
    return training, state, probe, count(model, head, before)


def start_method(
    config: RunConfig,
    model: LoadedModel,
    training: Training,
    state: TrainState,
    after_row: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Initialize the method before the first step, from training rows or from the run `start_from`.

    Returns facts for the record. `after_row` is called after each row that the method uses, and may raise to stop.
    """
    if config.start_from is not None:
        take_over(config, model, state)
        return {}
    context = TrainingContext(training, torch.Generator().manual_seed(config.seeds.init), state, after_row)
    facts = state.method.prepare(state.layers, context)
    state.optimizer.refresh_masters()
    return facts


def _total_steps(config: RunConfig, loaded: Loaded) -> int:
    train = config.train
    return DataOrder(len(loaded.examples), train.batch_size, config.seeds.data).total_steps(
        train.epochs, train.max_steps
    )


def _adapted_weights(config: RunConfig) -> int:
    """Number of weights in the layers that can be adapted, known without loading; a large number if unknown."""
    shapes = layer_shapes(config.model)
    return sum(m * n for m, n in shapes.values()) if shapes else 10**9


def _provenance(config: RunConfig, loaded: Loaded) -> Provenance:
    device = loaded.device
    return Provenance(
        packages=origin.package_versions(origin.plugin_packages(config)),
        python=sys.version.split()[0],
        git_commit=origin.commit(),
        uncommitted=origin.uncommitted(config),
        code=origin.code_hashes(config),
        device=device.device_name,
        device_kind=device.device.type,  # type: ignore[arg-type]
        dtype=str(device.dtype).removeprefix("torch."),
        threads=device.threads,
        data=loaded.data.used(),
        weights=loaded.model.weights,
        start=adapter_hash(config),
    )
