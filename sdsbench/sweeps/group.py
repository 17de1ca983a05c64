"""Train runs of a plan that share a frozen base side by side in one process.

Each member of a group is an ordinary run with its own folder, lock, record, step log, checkpoints and evaluation. The
group adds joint training between the stages `prepare` and `train` of runs/. If the group as a whole fails, its runs
continue alone from their last step.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from sdsbench.core.errors import TrainingFailed
from sdsbench.core.hashing import canonical_json
from sdsbench.methods import base as methods
from sdsbench.methods.named_tensors import version
from sdsbench.models.load import LoadedModel
from sdsbench.runs.configuration.identity import naming
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.memory import Batch, fits, micro_tokens, training_bytes
from sdsbench.runs.run_context import LoadModel, RunContext
from sdsbench.runs.train import training_member
from sdsbench.sweeps.cost import compute_type
from sdsbench.sweeps.placing import AUTO
from sdsbench.sweeps.staged_run import StagedRun
from sdsbench.tasks import base as tasks
from sdsbench.training import checkpoint
from sdsbench.training.side_by_side import Member, SideBySide, with_shared_weights

LARGEST = 8  # largest group that `auto` chooses


def group_key(config: RunConfig) -> str | None:
    """A text that is equal for runs that may train as a group: runs that differ only in seeds and learning rates.

    None for a run that must train alone: its method has no adapted layers (the base is trained, or the method adds
    layers of its own), a new head is trained, or train.mean_over is set.
    """
    if (
        config.train.mean_over is not None
        or not methods.build(config.method).wraps_layers()
        or tasks.build(config.task).num_labels is not None
    ):
        return None
    tree = naming(config)
    del tree["seed"], tree["seeds"], tree["train"]["lr"]
    return canonical_json(tree)


def group_size(asked: int | str, config: RunConfig) -> int:
    """Number of runs like this one that train side by side on this machine.

    `auto` is 1 on a CPU, where groups save no time (docs/speed.md), and on CUDA the largest group, up to LARGEST, whose
    counted memory fits the device.
    """
    if asked != AUTO:
        return int(asked)
    if config.device == "cpu" or not torch.cuda.is_available() or group_key(config) is None:
        return 1
    return most_that_fit(config, torch.cuda.get_device_properties(0).total_memory)


def most_that_fit(config: RunConfig, device_bytes: float) -> int:
    """The largest group, up to LARGEST, whose counted memory fits a device of that size; 1 if memory is unknown."""
    for runs in range(LARGEST, 1, -1):
        needed = group_bytes(config, runs)
        if needed is not None and fits(needed, device_bytes):
            return runs
    return 1


def group_bytes(config: RunConfig, runs: int) -> int | None:
    """Bytes of the smallest joint pass: one example of train.max_length tokens per run; None: unknown architecture."""
    return training_bytes(config, Batch((config.train.max_length,), 1.0), compute_type(config), runs)


class SharedBase:
    """Loads a model once by `load` and gives every member its own modules around the same weights.

    A method that writes to these weights would change the other members' models. `restore` detects this and restores
    the loaded values. After every step it compares the address and version of every tensor, which is fast; with
    `thorough` it compares their contents, since writes through `weight.data` change neither address nor version.
    """

    def __init__(self, load: LoadModel) -> None:
        self._load = load
        self._loaded: LoadedModel | None = None
        self._arguments: tuple[Any, ...] = ()
        self._seen: dict[str, tuple[int, int]] = {}
        self._contents: dict[str, int] = {}
        self.members: list[StagedRun] = []

    @property
    def model(self) -> nn.Module:
        assert self._loaded is not None, "the members loaded it"
        return self._loaded.model

    def __call__(self, *arguments: Any) -> LoadedModel:
        if self._loaded is None:
            self._arguments = arguments
            self._loaded = self._load(*arguments)
            self._seen, self._contents = _versions(self._loaded.model), _contents(self._loaded.model)
        return dataclasses.replace(self._loaded, model=with_shared_weights(self._loaded.model))

    def restore(self, thorough: bool = False) -> bool:
        """Return whether any weight has changed since loading; if so, restore the loaded values of all weights."""
        if self._loaded is None:
            return False
        if _versions(self.model) == self._seen and not (thorough and _contents(self.model) != self._contents):
            return False
        loaded = dict(self._load(*self._arguments).model.named_parameters())
        for name, parameter in self.model.named_parameters():
            parameter.data = loaded[name].data
        self._seen = _versions(self.model)
        return True


def _versions(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(address, version) of every weight by name."""
    return {name: version(parameter) for name, parameter in model.named_parameters()}


def _contents(model: nn.Module) -> dict[str, int]:
    """A checksum of every weight by name: the sum of its bit patterns, read as integers."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: int(parameter.detach().view(whole[parameter.element_size()]).sum(dtype=torch.int64))
        for name, parameter in model.named_parameters()
    }


def prepare_on_shared_base(run: StagedRun, config: RunConfig, context: RunContext, base: SharedBase) -> None:
    """Prepare a run on the shared weights, or on its own copy of them if its method writes to them."""
    run.prepare(config, dataclasses.replace(context, load_model=base))
    if base.restore(thorough=True):
        context.log(f"{run.identity}: its method changes the base weights in place, so it shares none and trains alone")
        run.prepare_again(context)
    elif run.prepared is not None:
        base.members.append(run)


def _written_into() -> TrainingFailed:
    return TrainingFailed(
        "a method wrote into base weights that several runs shared while they trained side by side, so none of their "
        "losses counts. `sdsbench retry PLAN --failed sweep.group_size=1` trains them anew, one at a time."
    )


def train_side_by_side(base: SharedBase, log: Callable[[str], None]) -> None:
    """Train members with equal batch size and step count as one group. Members without a partner train alone later.

    A member whose own part of a step fails is ended with that error; the others continue. If the contents of the shared
    weights have changed, the checkpoints of a group are deleted, since they were trained with the changed weights.
    """
    with ExitStack() as all_open:
        changed = False  # whether the weights that the current group shares were found changed at any time
        driven: dict[Member, tuple[StagedRun, ExitStack]] = {}
        groups: dict[Any, list[Member]] = defaultdict(list)
        for run in base.members:
            assert run.prepared is not None
            own = all_open.enter_context(ExitStack())
            member = own.enter_context(training_member(run.prepared))
            driven[member] = run, own
            groups[member.group_key].append(member)

        def leave(member: Member, error: Exception) -> None:
            nonlocal changed
            changed |= base.restore(thorough=True)
            run, own = driven[member]
            if changed:
                assert run.prepared is not None
                checkpoint.remove_all(run.prepared.run.folder)  # while this process still has the run's lock
            own.close()  # before `fail`, whose record must contain the measurements of this context
            run.fail(error)

        for group in groups.values():
            if len(group) > 1:
                changed = False
                try:
                    tokens = _joint_tokens([driven[member][0] for member in group])
                    SideBySide(base.model, group, base.restore, tokens).run(leave)
                except Exception as error:
                    log(f"{len(group)} runs side by side: {type(error).__name__}: {error}. They continue alone.")
                changed |= base.restore(thorough=True)
                if changed:
                    for member in group:
                        if not driven[member][0].over:
                            leave(member, _written_into())


def _joint_tokens(runs: Sequence[StagedRun]) -> int | None:
    """Largest number of tokens in a joint pass of these runs; None: no limit."""
    prepared = [run.prepared for run in runs if run.prepared is not None]
    longest = max(one.loaded.family.longest(one.loaded.examples) for one in prepared)
    device, config = prepared[0].loaded.device, prepared[0].run.config
    return micro_tokens(config, longest, device.device, str(device.dtype).removeprefix("torch."), len(runs))
