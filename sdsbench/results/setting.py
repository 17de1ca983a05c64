"""The definition of "the same setting", used by tables, figures, claims and the report.

Two runs may be compared if all keys that name a run are equal, except the method with its own keys, its rank, the
value that tuning chose, and the seed. Two runs may be averaged if only the seed differs. A learning rate set by hand is
another setting than the one that the protocol gives.

| may differ | within a cell (averaged) | along a column (compared) |
|---|---|---|
| seed | yes | yes |
| keys of the method, rank, alpha | no | yes |
| the tuned value; a learning rate that the protocol gives | no | yes |
| a learning rate set by hand, method.targets, method.dropout | no | no, but a grid gives them rows of their own |
| model, task, steps, batch, data, generation, torch, device, dtype ... | no | no, a grid has columns for them |
| kind and threads of the machine | in cells that show a cost: no | yes |

Below, a fact is one such key with its value. A fact that a run lacks (after running out of memory it has no evaluation)
is compared with nothing, and so is a key without effect on the run (listed as `inert` in its record).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sdsbench.core.hashing import canonical_json
from sdsbench.core.texts import some_of

if TYPE_CHECKING:
    from sdsbench.core.record import Record, Score
    from sdsbench.results.tables.loaded_runs import Run

Facts = Mapping[str, Any]
_HASH = re.compile("[0-9a-f]{64}")

_SEEDS = ("config.seed", "config.seeds.")
_NO_NUMBERS = (
    "config.protocol.paper", "config.protocol.code", "config.protocol.ours", "config.protocol.variants",
    "config.protocol.seeds", "config.protocol.source", "config.eval.batch_size",
    "config.eval.untrained", "config.eval.each_epoch", "config.train.checkpoint_every", "config.train.save",
)  # fmt: skip
"""Keys that do not change a run's numbers, or change none that a table shows."""
_APART = ("config.method.", "config.protocol.", "config.model.", "config.eval.split", "config.train.lr")
"""Keys that may differ between methods, or whose effect is compared instead of their text."""


def tuning_run(record: Record) -> bool:
    """Whether a run only served tuning: it was scored on validation rows and never tested."""
    return record.tuning is None and record.config.get("eval", {}).get("split") == "validation"


def engine(record: Record) -> str:
    """What generated the answers; records that do not say have the default."""
    return str(record.config.get("eval", {}).get("engine", "transformers"))


def column_facts(record: Record, flat: Facts) -> dict[str, Any]:
    """Facts that must be equal along a column, except those of row_facts and score_facts."""
    facts = {
        key.removeprefix("config."): _plain(value)
        for key, value in flat.items()
        if key.startswith("config.") and not key.startswith((*_SEEDS, *_APART)) and key not in _NO_NUMBERS
    }
    facts["model.image_size"] = flat.get("config.model.image_size") or "the model's own"  # not in the weights' hash
    facts |= {"model": record.model, "protocol": record.protocol, "task": record.task, "train_set": record.train_set}
    facts["eval.engine"] = engine(record)
    if not tuning_run(record):
        facts["tuning"] = _tuning(record)
    if (provenance := record.provenance) is not None:
        facts["data source"] = _plain(sorted({(used.dataset, used.split, used.source) for used in provenance.data}))
        for used in provenance.data:
            if used.split == "train":
                # In older records the rows of a limited training set depend on the seed.
                facts[f"training data of seed {record.seed}"] = (used.dataset, used.rows, used.fingerprint)
        evaluated = {(used.dataset, used.fingerprint) for used in provenance.data if used.split != "train"}
        facts["evaluated data"] = _plain(sorted(evaluated))
        facts["weights"] = provenance.weights.fingerprint
        facts["torch"] = ".".join(provenance.packages.get("torch", "unknown").split("+")[0].split(".")[:2])
        facts["device kind"], facts["dtype"] = provenance.device_kind, provenance.dtype
        if tuning_run(record):
            del facts["evaluated data"], facts["data source"]
    return facts


def row_facts(record: Record, flat: Facts) -> dict[str, Any]:
    """Facts that must be equal along a column; runs of one method that differ in them become rows of their own."""
    facts: dict[str, Any] = {}
    rate, given = flat.get("config.train.lr", record.lr), flat.get("config.protocol.lr")
    tuned = record.tuning is not None and record.tuning.key == "train.lr"
    if not (tuned or tuning_run(record)):
        facts["train.lr"] = "the protocol's" if given is not None and rate == given else rate
    if record.rank is not None:
        for key in ("targets", "dropout"):
            if f"config.method.{key}" in flat:
                facts[f"method.{key}"] = _plain(flat[f"config.method.{key}"])
    return facts


def score_facts(score: Score | None) -> dict[str, Any]:
    """Facts of a score that must be equal along a column."""
    return {} if score is None else {"evaluation version": score.version, "scorer": score.scorer, "questions": score.n}


def compared(run: Run, score: Score | None = None) -> dict[str, Any]:
    """All facts that must be equal for runs to be compared (along a column)."""
    return {**run.column_facts, **run.row_facts, **score_facts(score)}


def averaged(run: Run, score: Score | None = None, cost: bool = False) -> dict[str, Any]:
    """All facts that must be equal for runs to be averaged (within a cell); for a `cost` also those of the machine."""
    record, provenance = run.record, run.record.provenance
    facts: dict[str, Any] = {
        key.removeprefix("config."): _plain(value)
        for key, value in run.naming.items()
        if key.startswith("config.") and not key.startswith(_SEEDS) and key not in _NO_NUMBERS
    }
    facts |= {"lr": record.lr, "alpha": record.alpha, "rank": record.rank, "eval.engine": engine(record)}
    if provenance is not None:
        facts |= {f"code.{part}": digest for part, digest in provenance.code.items()}
        if cost:
            facts |= {"device": provenance.device, "threads": provenance.threads, **record.placing}
    return facts | compared(run, score)


def differences(runs: Sequence[Run], facts: Sequence[Facts]) -> list[str]:
    """One line per fact in which the runs differ: `code.core: a1 in run1, run2; b2 in run3`."""
    lines = []
    for key, holders in _differing(facts).items():
        parts = (f"{value} in {some_of(sorted(runs[i].id for i in at), 4)}" for value, at in sorted(holders.items()))
        lines.append(f"{key}: " + "; ".join(parts))
    return lines


def differing_facts(facts: Sequence[Facts]) -> list[dict[str, str]]:
    """For each cell, the facts in which it differs from the majority; empty if it may be compared with them.

    The majority value is the most frequent one. If two values are equally frequent, every cell counts as different.
    """
    apart: list[dict[str, str]] = [{} for _ in facts]
    for key, holders in _differing(facts).items():
        sizes = sorted((len(at) for at in holders.values()), reverse=True)
        common = max(holders, key=lambda value: len(holders[value])) if sizes[0] > sizes[1] else None
        for value, at in holders.items():
            for i in at if value != common else ():
                apart[i][key] = value
    return apart


def agree(some: Facts, others: Facts) -> bool:
    """Whether all facts that both sides have are equal."""
    return all(others[key] == value for key, value in some.items() if key in others)


def text(value: Any) -> str:
    """A fact's value for display: hashes shortened to 12 digits, long texts cut at 80 characters."""
    words = _words(value)
    return words if len(words) <= 80 else words[:77] + "..."


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return (", " if any(isinstance(item, tuple) for item in value) else " ").join(map(_words, value))
    words = str(value)
    return words[:12] if _HASH.fullmatch(words) else words


def _differing(facts: Sequence[Facts]) -> dict[str, dict[str, list[int]]]:
    """key -> value as text -> indices of the runs with it, for every key with at least two values, ordered by key."""
    found: dict[str, dict[str, list[int]]] = {}
    for key in sorted({key for fact in facts for key in fact}):
        values: dict[Any, list[int]] = {}
        for i, fact in enumerate(facts):
            if key in fact:
                values.setdefault(fact[key], []).append(i)
        if len(values) > 1:
            holders = found.setdefault(key, {})
            for value, at in values.items():
                holders.setdefault(text(value) if text(value) not in holders else repr(value), []).extend(at)
    return found


def _tuning(record: Record) -> str:
    """The tuning rule (grid and seeds, not the chosen value), which all methods of a comparison must share."""
    tuning = record.tuning
    if tuning is None:
        return "none"
    declared = tuning.declared or tuning.grid
    rates = ", ".join(f"{value:g}" for value in declared)
    extended = f", extended by up to {tuning.extend}" if tuning.extend else ""
    return f"{tuning.key} of {rates}{extended}, seeds {', '.join(map(str, tuning.seeds))}"


def _plain(value: Any) -> Any:
    """A hashable form of the value: lists as tuples, mappings as JSON text."""
    if isinstance(value, dict):
        return canonical_json(value)
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple) else value
