"""Select the layers of `method.targets` by name only, so that a configuration can be checked without weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdsbench.core.errors import Problem
from sdsbench.core.spelling import nearest

ALL_LINEAR = "all-linear"
HEADS = frozenset({"lm_head", "classifier", "score", "pooler", "qa_outputs", "cls", "head", "embed_out"})
"""Parts of names that mark output heads and poolers; `all-linear` leaves them alone."""


def matches(name: str, targets: Sequence[str]) -> bool:
    """Whether a dotted layer name is meant by `targets`: equal to one of them, or ending in "." + one of them."""
    parts = name.split(".")
    if list(targets) == [ALL_LINEAR]:
        return not HEADS.intersection(parts)
    return any(parts[-len(target.split(".")) :] == target.split(".") for target in targets)


def unmatched(names: Sequence[str], targets: Sequence[str]) -> Iterator[Problem]:
    """Yield a Problem for every target that matches no layer name."""
    for target in targets:
        if not any(matches(name, [target]) for name in names):
            endings = sorted({name.rsplit(".", 1)[-1] for name in names})
            accepted = f"[{ALL_LINEAR}] or endings of layer names: {', '.join(endings)}"
            yield Problem("method.targets", target, accepted, nearest(target, endings))
