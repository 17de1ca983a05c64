"""What must be equal before runs are averaged or put side by side; the refusal says which differ in what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.measures import score_of
from sdsbench.results.tables.runs import Run

_SEEDS = ("config.seed", "config.seeds.")
_NAMES = ("config.protocol.paper", "config.protocol.seeds")  # shown to people, used by no run


def averaged(run: Run, column: Column) -> dict[str, Any]:
    """Everything that must be equal within a cell: all that decides a run's numbers, its seeds apart."""
    record, provenance = run.record, run.record.provenance
    facts: dict[str, Any] = {
        key: _hashable(value)
        for key, value in run.flat.items()
        if key.startswith("config.") and not key.startswith(_SEEDS) and key not in _NAMES
    }
    facts |= {"lr": record.lr, "alpha": record.alpha, "rank": record.rank, "train_set": record.train_set}
    if provenance is not None:
        facts |= {f"code.{part}": digest for part, digest in provenance.code.items()}
        facts["dtype"] = provenance.dtype
        facts["weights"] = provenance.weights.fingerprint
        facts["training data"] = _hashable(
            [(used.dataset, used.source, used.revision, used.rows) for used in provenance.data if used.split == "train"]
        )
    return facts | compared(run, column)


def compared(run: Run, column: Column) -> dict[str, Any]:
    """What must be equal along a column, between methods."""
    facts: dict[str, Any] = {"model": run.record.model, "protocol": run.record.protocol}
    score = score_of(run, column) if column.measure == "score" else None
    if score is not None:
        facts |= {"evaluation version": score.version, "scorer": score.scorer, "questions": score.n}
    if run.record.provenance is not None:
        facts["data source"] = _hashable(
            sorted({(used.dataset, used.split, used.source) for used in run.record.provenance.data})
        )
        facts["evaluated data"] = _hashable(
            sorted({(used.dataset, used.fingerprint) for used in run.record.provenance.data if used.split != "train"})
        )
    return facts


def differences(runs: Sequence[Run], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a fact in which the runs differ: `code.core: a1 in run1, run2; b2 in run3`."""
    lines = []
    for key in sorted({key for fact in facts for key in fact}):
        holders: dict[str, list[str]] = {}
        for run, fact in zip(runs, facts, strict=True):
            holders.setdefault(_text(fact.get(key)), []).append(run.id)
        if len(holders) > 1:
            lines.append(f"{key}: " + "; ".join(f"{value} in {_ids(ids)}" for value, ids in sorted(holders.items())))
    return lines


def _ids(ids: Iterable[str]) -> str:
    ids = sorted(ids)
    return ", ".join(ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
