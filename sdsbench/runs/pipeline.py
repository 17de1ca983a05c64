"""One run: a checked configuration -> data, model, method, training, evaluation -> a record.

The only module that knows every stage. Each stage takes what the one before it made; nothing flows back.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from sdsbench.core import samples
from sdsbench.core import step_log as metrics
from sdsbench.core.files import disk_errors, write_atomic
from sdsbench.core.lock import owned
from sdsbench.core.progress import Progress, forget_peak_memory, peak_memory, say_now
from sdsbench.core.record import Losses, Memory, Parameters, Provenance, Record, Score, Tokens, Tuning
from sdsbench.data.sources import Rows
from sdsbench.evaluation.text import Evaluated
from sdsbench.methods import base as methods
from sdsbench.methods.attach import adapted_layers, merged
from sdsbench.methods.export import save_adapter
from sdsbench.models.load import LoadedModel
from sdsbench.models.load import load as load_model
from sdsbench.runs import provenance
from sdsbench.runs.banner import banner
from sdsbench.runs.configuration.check import layer_shapes
from sdsbench.runs.configuration.identity import resolved, run_id
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import settled
from sdsbench.runs.families import Family, family_of
from sdsbench.runs.keeper import Keeper
from sdsbench.runs.run_data import load_run, require_same_data
from sdsbench.runs.summary import summary
from sdsbench.runs.tracking.trackers import tracker_of
from sdsbench.tasks import base as tasks
from sdsbench.training import checkpoint
from sdsbench.training.assemble import assemble
from sdsbench.training.data_context import TrainingContext
from sdsbench.training.in_backward import require_torchao
from sdsbench.training.loop import StepReport, Training
from sdsbench.training.parameters import count
from sdsbench.training.precision import Place, settle
from sdsbench.training.probes.observer import FOLDER as PROBES
from sdsbench.training.probes.observer import Probe
from sdsbench.training.side_by_side import GROUP_SIZE, Member
from sdsbench.training.signals import StopRequest
from sdsbench.training.state import TrainState


@dataclass(frozen=True)
class Surroundings:
    """What a sweep's worker brings to the runs of its process; the defaults are those of a run alone."""

    stop: StopRequest | None = None
    load_model: Callable[..., LoadedModel] = load_model
    tuning: Tuning | None = None  # how a value of this configuration was chosen
    lost_as: Literal["killed", "node_failure"] = "killed"  # what ended an earlier attempt that could not say so


def execute(config: RunConfig, say: Callable[[str], None] = say_now, around: Surroundings = Surroundings()) -> Record:
    """Run to the end, or find the finished run and train nothing; the record is on disk either way.

    Raises Unavailable (data or weights), TrainingFailed, Interrupted (state saved), Owned (another process has the
    run), Refused (a checkpoint of other code), DiskRefuses (full or read-only; what was finished stays intact).
    """
    run = stages(config, say, around)
    while True:
        try:
            next(run)
        except StopIteration as finished:
            return finished.value


Stages = Generator[Member, None, Record]


def stages(config: RunConfig, say: Callable[[str], None], around: Surroundings) -> Stages:
    """`execute` with one stop, before the first step: there the run hands out its training.

    Who drives several runs may train them side by side there (sweeps/group.py), or throw in the error that ended one;
    a run that goes on trains whatever is left.
    """
    config, why = settled(config)
    identity = run_id(config)
    folder = Path(config.output_root) / identity
    with disk_errors(folder.parent), owned(folder):
        keeper = Keeper(folder, config, identity, say, around.lost_as)
        if keeper.finished and not config.force:
            if remark := require_same_data(config, keeper.record):
                say(remark)
            if around.tuning is not None and keeper.record.tuning != around.tuning:
                keeper.record.tuning = around.tuning  # chosen again, from a larger budget
                keeper.write()
            again = f"{_no_probes(config, folder)}force=true runs it again"
            say(f"found finished run {identity}; nothing trained ({again})\n{summary(keeper.record)}")
            return keeper.record
        if config.force:
            keeper.start_over(config)
            checkpoint.remove_all(folder)
        keeper.record.tuning = around.tuning
        with nullcontext(around.stop) if around.stop else StopRequest() as stop, keeper.attempt():
            yield from Run(config, folder, keeper, stop, say, why, around.load_model).go()
        checkpoint.remove_all(folder)
        say(summary(keeper.record))
        return keeper.record


def _no_probes(config: RunConfig, folder: Path) -> str:
    """What to say of a finished run whose probes are asked for and were never taken."""
    return "" if config.probe.every is None or (folder / PROBES).exists() else "it has no probes: "


@dataclass(frozen=True)
class Loaded:
    """What training starts from."""

    model: LoadedModel
    rows: Rows
    place: Place
    family: Family
    examples: Sequence[Any]
    evaluations: Sequence[tuple[Any, Rows]]


@dataclass(frozen=True)
class Adapted:
    """A method in a model, ready to train."""

    training: Training
    state: TrainState
    parameters: Parameters
    probe: Probe | None


@dataclass
class Run:
    """The stages of one run, in the order of `go`."""

    config: RunConfig
    folder: Path
    keeper: Keeper
    stop: StopRequest
    say: Callable[[str], None]
    why_source: str
    load_model: Callable[..., LoadedModel]
    loading_peak: int = 0  # bytes, until training starts

    def go(self) -> Iterator[Member]:
        config, timed, record = self.config, self.keeper.timed, self.keeper.record
        forget_peak_memory()
        write_atomic(self.folder / "config.yaml", yaml.safe_dump(resolved(config), sort_keys=False))
        resume, remarks = checkpoint.newest(self.folder)
        for remark in remarks:
            self.say(remark)
        with timed("load"):
            loaded = self._load()
        untrained: list[Score] = []
        if config.eval.untrained and resume is None:
            with timed("eval"):
                untrained = self._evaluate(loaded, "untrained")
        with timed("init"):
            adapted = self._adapt(loaded)
            identity = self._identity(loaded.rows)
            if resume is not None:
                checkpoint.load(resume, adapted.state, identity)
            else:
                context = TrainingContext(adapted.training, torch.Generator().manual_seed(config.seeds.init))
                record.facts |= adapted.state.method.prepare(adapted.state.layers, context)
                adapted.state.optimizer.refresh_masters()
                adapted.state.extra = {"untrained": [score.model_dump() for score in untrained], "best": {}}
                checkpoint.save(self.folder, adapted.state, identity)
        self._announce(loaded, adapted)
        yield from self._train(loaded, adapted, identity)
        self._save(loaded, adapted.state)
        with timed("eval"):
            trained = self._evaluate(loaded, "validation" if config.eval.split == "validation" else "trained")
        self._finish(adapted.state, trained)

    def _load(self) -> Loaded:
        """Everything that training starts from: rows, weights, and what the task makes of them."""
        config = self.config
        if config.train.optimizer == "adamw8bit":
            require_torchao()
        task = tasks.build(config.task)
        data = load_run(config)
        place = settle(config.device, config.dtype, config.threads, self._size())
        model = self.load_model(config.model, place.dtype, getattr(task, "num_labels", None))
        model.model.to(place.device)
        family = family_of(task, model, config)
        return Loaded(model, data.training, place, family, family.encode_all(data.training), data.evaluations)

    def _adapt(self, loaded: Loaded) -> Adapted:
        """The method put into the model, the loop and its resumable state."""
        config, model = self.config, loaded.model.model
        before = sum(parameter.numel() for parameter in model.parameters())
        method = methods.build(config.method)
        training, state, head = assemble(
            model, method, loaded.family, loaded.examples, config.train, config.seeds, loaded.place.device
        )
        probe = Probe(config.probe, model, state.layers, method) if config.probe.every is not None else None
        return Adapted(training, state, count(model, head, before), probe)

    def _announce(self, loaded: Loaded, adapted: Adapted) -> None:
        """What was decided, to the user and into the record."""
        record = self.keeper.record
        record.parameters = adapted.parameters
        record.provenance = self._provenance(loaded)
        record.attempts[-1].from_step = adapted.state.step
        self.keeper.write()
        self.say(
            banner(
                self.folder.name, self.config, loaded.model, loaded.rows, self.why_source, loaded.place,
                adapted.parameters, adapted.training,
            )
        )  # fmt: skip

    def _size(self) -> int:
        """Weights of the adapted layers, known without loading; large where unknown."""
        shapes = layer_shapes(self.config.model)
        return sum(m * n for m, n in shapes.values()) if shapes else 10**9

    def _identity(self, rows: Rows) -> dict[str, str]:
        return {"configuration": self.folder.name, "code": provenance.code_hash(), "data": rows.fingerprint}

    def _train(self, loaded: Loaded, adapted: Adapted, identity: dict[str, str]) -> Iterator[Member]:
        training, state, config = adapted.training, adapted.state, self.config
        file = metrics.MetricsFile(self.folder / "metrics.jsonl", resume_after=state.step)
        if adapted.probe is not None:
            watch = adapted.probe.watch(training, state, self.folder, file.write)
            training = dataclasses.replace(training, observer=watch)
        tracker = tracker_of(config.tracker, self.folder)
        evaluation = self.keeper.record.seconds.eval  # spent on the untrained model: the best guess of what comes
        progress = Progress("train", training.total_steps, state.step, after=evaluation)

        def after_step(step: StepReport) -> None:
            file.write("train", step.step, **step.numbers())
            tracker.log(step.step, step.numbers())
            if step.facts:
                file.write("method", step.step, **step.facts)
            speed = step.tokens / step.seconds
            progress.advance(1, f"loss {step.loss:.4f}  lr {step.lr:.2e}  {speed:,.0f} tokens/s")
            if config.eval.each_epoch and step.step % training.order.steps_per_epoch == 0:
                with self.keeper.timed("eval"):
                    self._remember_best(loaded, state, step.step // training.order.steps_per_epoch)
            due = step.step % config.train.checkpoint_every == 0 or step.step == training.total_steps
            if due or self.stop.received is not None:
                checkpoint.save(self.folder, state, identity)
            self.stop.raise_if_received(f"the state after step {step.step} is saved; the same command continues")

        try:
            self.loading_peak = peak_memory()[0]
            yield Member(training, state, after_step)
            forget_peak_memory()  # other runs may have trained in between
            training.run(state, after_step)
        finally:
            file.close()
            tracker.close()
            if GROUP_SIZE in state.extra:
                self.keeper.record.facts[GROUP_SIZE] = float(state.extra[GROUP_SIZE])
        self.keeper.record.seconds.train = state.counters.seconds

    def _remember_best(self, loaded: Loaded, state: TrainState, epoch: int) -> None:
        """Evaluate after an epoch; keeps, per evaluation set, scores and samples of the best headline score."""
        for evaluated in self._outcomes(loaded, "best_epoch"):
            headline = next(score for score in evaluated.scores if score.headline)
            best = state.extra["best"].get(headline.evaluation)
            if best is None or headline.value > best["value"]:
                scores = [score.model_dump() for score in evaluated.scores]
                state.extra["best"][headline.evaluation] = {"epoch": epoch, "value": headline.value, "scores": scores}
                self._keep_samples(evaluated)
        loaded.model.model.train()

    def _evaluate(self, loaded: Loaded, stage: str) -> list[Score]:
        """Scores on every evaluation set; per-question outputs go to samples/."""
        scores: list[Score] = []
        for evaluated in self._outcomes(loaded, stage):
            self._keep_samples(evaluated)
            scores += evaluated.scores
        return scores

    def _outcomes(self, loaded: Loaded, stage: str) -> Iterator[Evaluated]:
        """Scores and samples of one evaluation set after the other."""
        plain = evaluation_model(loaded.model.model, loaded.place)
        for evaluation, rows in loaded.evaluations:
            progress = Progress(f"evaluate {evaluation.name} ({stage})", len(rows))

            def advance(units: int, progress: Progress = progress) -> None:
                progress.advance(units)
                self.stop.raise_if_received("evaluation starts again from the trained state")

            yield loaded.family.evaluate(plain, evaluation, rows, stage, self.config.eval.batch_size, advance)

    def _keep_samples(self, evaluated: Evaluated) -> None:
        score = evaluated.scores[0]
        samples.write(samples.path_of(self.folder, score.evaluation, score.stage), evaluated.samples)

    def _save(self, loaded: Loaded, state: TrainState) -> None:
        """The trained tensors, as far as train.save asks for them."""
        save = self.config.train.save
        if save == "all" or (save == "adapter" and state.layers):
            others = other_trained(loaded.model.model, state.layers)
            save_adapter(self.folder / "adapter", state.layers, state.method, others)

    def _provenance(self, loaded: Loaded) -> Provenance:
        commit, dirty = provenance.git_state()
        place = loaded.place
        return Provenance(
            packages=provenance.package_versions(),
            python=sys.version.split()[0],
            git_commit=commit,
            git_dirty=dirty,
            code_hash=provenance.code_hash(),
            device=place.device_name,
            device_kind=place.device.type,  # type: ignore[arg-type]
            dtype=str(place.dtype).removeprefix("torch."),
            threads=place.threads,
            data=[loaded.rows.used(), *(rows.used() for _, rows in loaded.evaluations)],
            weights=loaded.model.weights,
        )

    def _finish(self, state: TrainState, trained: list[Score]) -> None:
        """Scores of every stage, losses, tokens and memory into the record."""
        record = self.keeper.record
        best = [score for found in state.extra["best"].values() for score in found["scores"]]
        record.scores = [*(Score(**score) for score in [*state.extra["untrained"], *best]), *trained]
        record.facts |= {f"best_epoch.{name}": float(found["epoch"]) for name, found in state.extra["best"].items()}
        lines = [line for line in metrics.read(self.folder / "metrics.jsonl") if line["kind"] == "train"]
        losses = [line["loss"] for line in lines]
        tail = losses[-max(1, len(losses) // 10) :]
        record.losses = Losses(first=losses[0], last=losses[-1], tail_mean=sum(tail) / len(tail), steps=len(losses))
        counters = state.counters
        record.tokens = Tokens(
            trained=counters.tokens,
            targets=counters.targets,
            padding_share=1 - counters.tokens / counters.positions,
        )
        if GROUP_SIZE not in record.facts:  # the peak of a group is no run's own
            size, kind = peak_memory()
            record.memory = Memory(peak_bytes=max(size, self.loading_peak), kind=kind)  # type: ignore[arg-type]


def ready_to_train(config: RunConfig) -> tuple[Training, TrainState]:
    """The loop and the state of a run at step 0, without a record or a folder (for `sdsbench profile`)."""
    config, why = settled(config)
    stages = Run(config, Path(), None, None, say_now, why, load_model)  # type: ignore[arg-type]
    adapted = stages._adapt(stages._load())
    context = TrainingContext(adapted.training, torch.Generator().manual_seed(config.seeds.init))
    adapted.state.method.prepare(adapted.state.layers, context)
    adapted.state.optimizer.refresh_masters()
    return adapted.training, adapted.state


def other_trained(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Trained tensors outside the adapted layers: a classifier head, or the weights of full fine-tuning."""
    adapted = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in adapted)
    return {name: parameter.detach() for name, parameter in trained}


def evaluation_model(model: nn.Module, place: Place) -> nn.Module:
    """The model that is scored: a plain fp32 copy with the adapters folded in, on a GPU in 16 bits the trained model.

    Adapters are folded where that changes their update by less than 1 %: fp32 changes it by a hundredth of that at
    most, bf16 by 3 to 60 % (docs/speed.md). On a CPU fp32 is also the faster type. The copy is one model more.
    """
    if place.device.type == "cuda" and (place.dtype != torch.float32 or not adapted_layers(model)):
        return model.eval()
    return merged(model, torch.float32).eval()
