"""The peak memory of a training step, measured on the CPU; the contract compares the estimate of memory.py with it."""

from __future__ import annotations

from sdsbench.models.load import with_random_weights
from sdsbench.runs.configuration.combinations import known_architecture
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.memory import Batch, assembled, labels_of
from sdsbench.training.meta_device import grouped_attention_as_on_cuda
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.saved_bytes import PeakBytes
from sdsbench.training.side_by_side import Member, SideBySide, with_shared_weights


def measured_bytes(config: RunConfig, batch: Batch, runs: int = 1) -> int:
    """Peak bytes of live tensors in a real step of `runs` runs side by side, each on `batch`, in float32.

    The model has random weights; weights and optimizer state are included. The model's architecture must be known.
    """
    known = known_architecture(config.model)
    assert known is not None
    with grouped_attention_as_on_cuda(), PeakBytes() as live:
        base = with_random_weights(config.model.family, known.config_json, labels_of(config)).train()
        models = [base] if runs == 1 else [with_shared_weights(base) for _ in range(runs)]
        made = [assembled(config, model, batch) for model in models]
        members, rows = [Member(training, state) for training, state, _ in made], made[0][2]
        joint = SideBySide(base, members) if runs > 1 else None
        for _ in range(2):  # the first step allocates the moments
            live.peak = live.now
            for member in members:
                assert isinstance(member.state.optimizer, FlatOptimizer)
                member.state.optimizer.zero_grad()
            losses = joint.backward([[rows]] * runs) if joint else [members[0].training.backward([rows])]
            for member, loss in zip(members, losses, strict=True):
                member.training.update(member.state, [rows], loss, 0.0)
    return live.peak
