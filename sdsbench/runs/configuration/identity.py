"""What names a run: the hash of everything that decides its numbers, and of nothing else."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from sdsbench.core.hashing import sha256_of
from sdsbench.runs.configuration.schema import RunConfig

PLACING = (
    "output_root", "force", "plugins", "tracker", "probe", "device", "threads", "data.root",
    "train.activation_checkpointing",
)  # fmt: skip
"""Keys that say where and how a run happens, not what it computes; they are recorded beside the hash."""


COST_KEYS = ("device", "threads", "eval.batch_size", "train.activation_checkpointing")
"""Keys whose value changes what a run costs and not its numbers; records keep them."""


def cost_keys(config: RunConfig) -> dict[str, Any]:
    """The values of COST_KEYS."""
    return {key: functools.reduce(getattr, key.split("."), config) for key in COST_KEYS}


def resolved(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, without the keys that only place the run (no path of a machine)."""
    tree = dataclasses.asdict(config)
    for key in PLACING:
        *sections, last = key.split(".")
        branch = tree
        for section in sections:
            branch = branch[section]
        del branch[last]
    if config.model.source == "folder":
        tree["model"]["location"] = None  # the record holds the fingerprint of the weights instead
    return tree


def named(config: RunConfig) -> dict[str, Any]:
    """The plain values that name a run and from which it can be built again; a local folder's path is one of them."""
    tree = resolved(config)
    tree["model"]["location"] = config.model.location
    return tree


def run_id(config: RunConfig) -> str:
    """16 hexadecimal digits: the name of the run's folder."""
    return name_of(named(config))


def name_of(tree: dict[str, Any]) -> str:
    """The run id of a `named` tree."""
    protocol = {key: value for key, value in tree["protocol"].items() if key != "paper"}  # used by nothing
    return sha256_of({**tree, "protocol": protocol})[:16]
