"""The `method x task` grid of any set of runs.

A column is one setting (results/setting.py): runs that differ in steps, data, optimizer, length of answers, torch,
device and so on are in separate columns, titled by what differs. A row is a method with its rank; runs of a method in
one column that differ in the method's keys or in an untuned learning rate are in separate rows (variants). A failed run
is placed by its configuration.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sdsbench.core.errors import Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.core.record import Score
from sdsbench.core.texts import counted
from sdsbench.results import setting
from sdsbench.results.tables.definition import Column, Row, Table, column_format
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.means import Head, mean_columns
from sdsbench.results.tables.titles import method_order, method_title, model_title, task_title

RowKey = tuple[str, int | None, str]  # method, rank, variant
SHORT = 40  # longest fact in a title, in characters


@dataclass
class _Setting:
    """Runs that may share a column: equal Head, and equal facts (setting.py) where both sides have them."""

    head: Head
    facts: dict[str, Any]
    runs: list[Run] = field(default_factory=list)

    def takes(self, facts: Mapping[str, Any]) -> bool:
        return setting.agree(facts, self.facts)

    def add(self, run: Run, facts: Mapping[str, Any]) -> None:
        self.runs.append(run)
        self.facts |= facts


def grid(runs: Sequence[Run], stage: str = "trained") -> Table:
    """Rows: methods and ranks. Columns: one per evaluation and setting.

    After a model's columns come the means that its tasks define (tables/means.py). Raises Unavailable if no run has a
    score of `stage`.
    """
    settings = _settings(runs, stage)
    if not settings:
        states = counted(Counter(sorted(run.record.status for run in runs)))
        raise Unavailable(f"no run has a {stage} score, so the grid would be empty; runs read: {states or 'none'}")
    plain = {head: _column(head, found, stage, [s.head for s in settings]) for head, found in _named(settings)}
    columns: list[Column] = []
    for model in dict.fromkeys(head.model for head in plain):
        own = {head: column for head, column in plain.items() if head.model == model}
        columns += [*own.values(), *mean_columns(own)]
        columns += [_forgotten(column) for column in own.values() if _has_base(column, runs)]
    members: dict[RowKey, set[str]] = {}
    for found in settings:
        for key, ids in _rows(found.runs, stage):
            members.setdefault(key, set()).update(ids)
    ranked = sorted(members, key=lambda key: (method_order(key[0]), key[1] or 0, key[2]))
    rows = tuple(_row(key, members[key]) for key in ranked)
    return Table("grid", "Methods by tasks", rows, tuple(columns), real_data=False)


def _settings(runs: Sequence[Run], stage: str) -> list[_Setting]:
    """Group scored runs by head and setting; then add each run without a score to the settings that it agrees with."""
    settings: list[_Setting] = []
    scored = sorted(runs, key=lambda run: (-len(run.column_facts), run.id))
    for run in scored:
        for score in run.record.scores:
            if score.headline and score.stage == stage:
                _place(settings, _head(run, score), run, {**run.column_facts, **setting.score_facts(score)})
    heads = {found.head for found in settings}
    for run in sorted(runs, key=lambda run: run.id):
        if any(score.headline and score.stage == stage for score in run.record.scores):
            continue
        record = run.record
        agreeing = [found for found in settings if found.takes(run.column_facts)]
        if not agreeing and not setting.tuning_run(record) and record.status != "done":
            for head in sorted(
                {head for head in heads if (head.task, head.train_set) == (record.task, record.train_set)}
            ):
                where = head._replace(model=record.model, protocol=record.protocol)
                _place(settings, where, run, run.column_facts)
        for found in agreeing:
            found.runs.append(run)
    return sorted(settings, key=lambda found: (found.head, sorted(run.id for run in found.runs)))


def _place(settings: list[_Setting], head: Head, run: Run, facts: Mapping[str, Any]) -> None:
    for found in settings:
        if found.head == head and found.takes(facts):
            return found.add(run, facts)
    settings.append(_Setting(head, dict(facts), [run]))


def _named(settings: Sequence[_Setting]) -> Iterable[tuple[Head, _Setting]]:
    """Give each setting a unique head: if several have the same one, add the facts in which they differ.

    Long facts (data, grids of rates) are shown as a hash, and only if the short ones do not distinguish the settings.
    """
    for found in settings:
        alike = [other for other in settings if other.head == found.head]
        keys = sorted({key for other in alike for key in other.facts})
        values = {key: {str(other.facts[key]) for other in alike if key in other.facts} for key in keys}
        differing = [key for key in keys if len(values[key]) > 1]
        short = [key for key in differing if all(len(str(other.facts.get(key))) <= SHORT for other in alike)]
        apart = {tuple(str(other.facts.get(key)) for key in short) for other in alike}
        shown = short if len(apart) == len(alike) else differing
        words = [f"{key}={_short(found.facts[key])}" for key in shown if key in found.facts]
        yield found.head._replace(setting=", ".join(words)), found


def _short(value: Any) -> str:
    words = str(value)
    return words if len(words) <= SHORT else hashlib.sha256(words.encode()).hexdigest()[:6]


def _rows(runs: Sequence[Run], stage: str) -> list[tuple[RowKey, set[str]]]:
    """(row key, run ids) for the runs of one column."""
    rows: list[tuple[RowKey, set[str]]] = []
    for (method, rank), members in grouped(runs, by_method).items():
        tested = [run for run in members if stage == "validation" or not setting.tuning_run(run.record)]
        keys = varying(tested)
        variants = by_variant(tested, keys)
        for run in members:
            if run not in tested:  # a tuning run is in the row of the runs whose value it helped to choose
                variants.setdefault(_variant_of_tuning(run, keys, variants), []).append(run)
        rows += [((method, rank, variant), {run.id for run in found}) for variant, found in variants.items()]
    return rows


def titles_of(runs: Sequence[Run]) -> dict[str, str]:
    """Run id -> title of its row: the method and, if these runs have several variants of it, the variant."""
    titles: dict[str, str] = {}
    for (method, rank), members in grouped(runs, by_method).items():
        keys = varying(members)
        titles |= {run.id: method_title(method, rank, variant_of(run, keys)) for run in members}
    return titles


def varying(runs: Sequence[Run], every: bool = False) -> list[str]:
    """Configuration keys in which these runs differ, except the seed and keys without effect.

    The tuned key is included only if it distinguishes further runs, or with `every`.
    """
    keys = {key for run in runs for key in run.naming if key.startswith(("config.method.", "config.train."))}
    found = sorted(key for key in keys if len({str(run.naming[key]) for run in runs if key in run.naming}) > 1)
    tuned = set() if every else {f"config.{run.record.tuning.key}" for run in runs if run.record.tuning}
    for key in tuned & set(found):
        others = [other for other in found if other != key]
        if len({variant_of(run, others) for run in runs}) == len({variant_of(run, found) for run in runs}):
            found = others
    return found


def by_method(run: Run) -> tuple[str, int | None]:
    return run.record.method, run.record.rank


def by_variant(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, list[Run]]:
    """Runs of one method by variant."""
    return grouped(runs, lambda run: variant_of(run, keys))


def variant_of(run: Run, keys: Sequence[str]) -> str:
    """The variant of a run, such as `method.refresh=every`."""
    return ", ".join(f"{key.removeprefix('config.')}={run.naming[key]}" for key in keys if key in run.naming)


def _variant_of_tuning(run: Run, varying: Sequence[str], variants: Mapping[str, Sequence[Run]]) -> str:
    for variant, runs in variants.items():
        chosen = [r.record.tuning.key for r in runs if r.record.tuning]
        keys = [key for key in varying if key.removeprefix("config.") not in chosen]
        if variant_of(run, keys) == variant_of(runs[0], keys):
            return variant
    return ""


def _row(key: RowKey, ids: set[str]) -> Row:
    method, rank, variant = key
    name = method if rank is None else f"{method}_r{rank}"
    name = f"{name}[{variant}]" if variant else name
    return Row(name, method_title(method, rank, variant), {"run_id": frozenset(ids)})


def _has_base(column: Column, runs: Sequence[Run]) -> bool:
    """Whether a column is a retention score that was also measured for the base model."""
    return any(f"forgotten.{column.evaluation}" in run.flat for run in runs if run.fits(column.where))


def _forgotten(column: Column) -> Column:
    """The column of forgetting: base model's minus trained model's retention score."""
    title = f"{column.title}: forgotten"
    return replace(
        column, name=f"{column.name}/forgotten", title=title, measure=f"forgotten.{column.evaluation}", better="lower"
    )


def _head(run: Run, score: Score) -> Head:
    record = run.record
    source = run.flat["data_source"]
    return Head(record.model, record.protocol, record.task, record.train_set, score.evaluation, score.scorer, source)


def _column(head: Head, found: _Setting, stage: str, heads: Sequence[Head]) -> Column:
    alike = [other for other in heads if (other.model, other.evaluation) == (head.model, head.evaluation)]
    name = f"{head.model}/{head.evaluation}"
    title = task_title(head.evaluation) + (" (embedded)" if "embedded" in head.source else "")
    parts = [head[i] for i in (1, 2, 3, 5, 6) if len({other[i] for other in alike}) > 1]  # those that differ
    if head.setting:
        parts.append(head.setting)
    if parts:
        name, title = f"{name}/{'/'.join(parts)}", f"{title}, {', '.join(parts)}"
    where = {
        "model": head.model,
        "protocol": head.protocol,
        "task": head.task,
        "train_set": head.train_set,
        "run_id": frozenset(run.id for run in found.runs),
    }
    which = (head.evaluation, head.scorer, stage)
    shown = [s for run in found.runs for s in run.record.scores if (s.evaluation, s.scorer, s.stage) == which]
    return Column(
        name,
        title,
        where,
        **(column_format(shown[0]) if shown else {}),
        evaluation=head.evaluation,
        scorer=head.scorer,
        stage=stage,
        group=model_title(head.model),
    )
