"""What names a run: the hash of everything that decides its numbers, and of nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from sdsbench.configuration.schema import RunConfig

PLACING = ("output_root", "force", "tracker", "device", "threads", "data.root")
"""Keys that say where and how a run happens, not what it computes; they are recorded beside the hash."""


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


def canonical_json(tree: Any) -> str:
    """One text for equal values: sorted keys, no spaces, exact floats."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def run_id(config: RunConfig) -> str:
    """16 hexadecimal digits: the name of the run's folder."""
    tree = resolved(config)
    tree["protocol"].pop("paper")  # shown to people, used by nothing
    if config.model.source == "folder":
        tree["model"]["location"] = str(config.model.location)
    return hashlib.sha256(canonical_json(tree).encode()).hexdigest()[:16]
