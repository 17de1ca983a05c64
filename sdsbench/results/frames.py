"""Run folders as pandas frames: the public API for own analyses.

    runs = sdsbench.load_runs("results/runs")          # a row a run
    scores = sdsbench.load_scores("results/runs")      # a row a number
    steps = sdsbench.load_steps("results/runs")        # a row a line of metrics.jsonl
    samples = sdsbench.load_samples("results/runs", evaluation="gsm8k")   # a row an answer

A folder argument is one place or several; each may hold run folders, be one, or be a bundle (`sdsbench bundle`). What
cannot be read is left out and named in `frame.attrs["damaged"]`: {what: why}.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sdsbench.core import samples
from sdsbench.core import step_log as metrics
from sdsbench.core.collection import collection_paused
from sdsbench.core.errors import ConfigError, DamagedFile, Problem, Unavailable
from sdsbench.core.leaves import leaves
from sdsbench.core.reading import FileContent, files_in, is_there
from sdsbench.core.record import Record, Score
from sdsbench.core.run_folder import read_record
from sdsbench.core.spelling import nearest
from sdsbench.results.bundles.opened import opened, require_sound, shown

Folders = str | Path | Sequence[str | Path]
DEFAULT = "results/runs"


@dataclass(frozen=True)
class Copy:
    """The same run in another place, and in what the two disagree (empty where they do not)."""

    origin: str
    disagreement: str


@dataclass(frozen=True)
class Found:
    """A readable record: its folder, the place (a folder or a bundle) that it is from, and its copies elsewhere."""

    folder: Path
    record: Record
    origin: str
    copies: list[Copy] = field(default_factory=list)


def find_records(folders: Folders = DEFAULT) -> list[tuple[Path, str]]:
    """Every record.json of the folders and bundles, in the order of run ids and places, with its place.

    Raises Unavailable for a place that is not there, DamagedFile for a bundle that is none.
    """
    found: dict[Path, str] = {}
    for place in [folders] if isinstance(folders, str | Path) else folders:
        root, origin = _opened(Path(place)), str(place)
        if is_there(root / "record.json"):
            found.setdefault(root / "record.json", origin)
        for name in sorted(os.listdir(root)):
            if is_there(f"{root}/{name}/record.json"):  # a link that leads nowhere is told, too
                found.setdefault(root / name / "record.json", origin)
    return sorted(found.items(), key=lambda pair: pair[0].parent.name)


def _opened(place: Path) -> Path:
    """The folder of runs that a place is, or that a bundle holds."""
    if place.is_file():
        return opened(place).folder / "runs"
    if not place.is_dir():
        raise Unavailable(
            f"{place}: no such folder of runs. Give one with --runs, or make runs first (sdsbench sweep)."
        )
    return place


def read_all(folders: Folders = DEFAULT) -> tuple[list[Found], dict[str, str]]:
    """Every readable record, each run once, and what is wrong with each of the others: {run id or path: reason}.

    A run that lies in several places counts where it was first found finished; the others are its copies.
    """
    found: dict[str, Found] = {}
    damaged: dict[str, str] = {}
    for one in _readable(folders, damaged):
        _add(found, one)
    return list(found.values()), damaged


def _readable(folders: Folders, damaged: dict[str, str]) -> Iterator[Found]:
    """Every readable record where it lies, one at a time; the others are put among the damaged ones."""
    names = set()
    for path, origin in find_records(folders):
        try:
            if os.path.islink(path.parent) and path.parent.resolve().parent != path.parent.parent.resolve():
                raise DamagedFile(f"{path.parent}: a link out of its folder, which is not followed. Give its target.")
            require_sound(path.parent)
            record = read_record(path)
        except DamagedFile as error:
            name = path.parent.name
            damaged[str(path.parent) if name in damaged or name in names else name] = shown(str(error))
            continue
        names.add(record.run_id)
        yield Found(path.parent, record, origin)


def _add(found: dict[str, Found], new: Found) -> None:
    """Put a record among the others; where its run is there already, one of them becomes the copy of the other."""
    old = found.setdefault(new.record.run_id, new)
    if old is new:
        return
    kept, other = (new, old) if _supersedes(new.record.status, old.record.status) else (old, new)
    kept.copies.extend([*other.copies, Copy(other.origin, disagreement(kept.record, other.record))])
    found[new.record.run_id] = kept


def _supersedes(new: str, old: str) -> bool:
    """Whether a run that was found again counts in place of the one that was found first."""
    return new == "done" != old


def disagreement(one: Record, other: Record) -> str:
    """In which numbers two records of one run differ; empty where in none. Times and attempts do not count."""
    if one.status != other.status:
        return f"status {one.status} and {other.status}"
    left, right = (
        {(s.evaluation, s.stage, s.scorer, s.version, s.along): s for s in record.scores} for record in (one, other)
    )
    pairs = {key: (left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])}
    texts = [
        f"{key[0]} ({key[2]}, {key[1]}) {_shown(mine)} and {_shown(theirs)}"
        for key, (mine, theirs) in pairs.items()
        if (mine and mine.value) != (theirs and theirs.value)
    ]
    if one.losses and other.losses and one.losses.last != other.losses.last:
        texts.append(f"last loss {one.losses.last:.6g} and {other.losses.last:.6g}")
    if one.config != other.config:
        texts.append("configuration")
    return ", ".join(texts)


def _shown(score: Score | None) -> str:
    return "none" if score is None else score.shown(score.value)


@collection_paused()
def load_runs(folders: Folders = DEFAULT) -> pd.DataFrame:
    """A row a run. Nested parts become dotted columns (seconds.train, provenance.device, config.train.batch_size);
    a headline score becomes a column `score.<evaluation>.<stage>`; `scores`, `data` and `tuning` stay as plain objects.
    """
    damaged: dict[str, str] = {}
    frame = pd.DataFrame(_columns(_readable(folders, damaged)))
    if frame.empty:
        frame = pd.DataFrame(
            columns=["run_id", "folder", "origin", "status", "model", "method", "task", "seed", "rank", "scores"]
        )
    frame.attrs["damaged"] = damaged
    return frame


def _columns(records: Iterable[Found]) -> dict[str, list[Any]]:
    """The columns of load_runs, NaN where a run has no such value. Neither records nor rows are kept: every row has
    its own texts as keys, which for thousands of runs take more memory, and so time, than the values.
    """
    columns: dict[str, list[Any]] = {}
    places: dict[str, int] = {}  # run id -> its row
    replaced = False
    for found in records:
        place = places.get(found.record.run_id)
        if place is not None and not _supersedes(found.record.status, columns["status"][place]):
            continue
        row = run_row(found.folder, found.record)
        row["origin"] = found.origin
        if list(row) != list(columns):
            columns |= {name: [math.nan] * len(places) for name in row if name not in columns}
            row = dict.fromkeys(columns, math.nan) | row
        if place is None:
            places[found.record.run_id] = len(places)
            for column, value in zip(columns.values(), row.values(), strict=True):
                column.append(value)
        else:
            for column, value in zip(columns.values(), row.values(), strict=True):
                column[place] = value
            replaced = True
    if replaced:  # what a row alone had that does not count
        return {name: column for name, column in columns.items() if any(value is not math.nan for value in column)}
    return columns


def load_scores(folders: Folders = DEFAULT) -> pd.DataFrame:
    """A row a score of a run, with what names the run."""
    records, damaged = read_all(folders)
    names = ("run_id", "status", "model", "method", "task", "train_set", "protocol", "seed", "rank", "lr")
    shown = "evaluation version scorer stage value stderr n headline undecided unit better retention along"
    frame = pd.DataFrame(
        [
            {name: getattr(record, name) for name in names} | score.model_dump()
            for record in (found.record for found in records)
            for score in record.scores
        ],
        columns=[*names, *shown.split()],
    )
    frame.attrs["damaged"] = damaged
    return frame


def load_steps(folders: Folders = DEFAULT, kind: str | None = None) -> pd.DataFrame:
    """A row a line of metrics.jsonl, with run_id; `kind` (train, method, eval, probe, held_out, memory) keeps one.

    The last line of a run that is being written may be cut; it is left out. Logs that cannot be read are named in
    `frame.attrs["damaged"]`. Raises ConfigError for another kind.
    """
    if kind is not None and kind not in metrics.KINDS:
        raise ConfigError([Problem("kind", kind, ", ".join(metrics.KINDS), nearest(kind, metrics.KINDS))])
    rows: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    for path, _ in find_records(folders):
        try:
            lines = metrics.read(path.parent / "metrics.jsonl")
        except DamagedFile as error:
            damaged[str(path.parent / "metrics.jsonl")] = shown(str(error))
            continue
        rows += [_below({"run_id": path.parent.name}, line) for line in lines if kind in (None, line["kind"])]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["run_id", "kind", "step"])
    frame.attrs["damaged"] = damaged
    return frame


def load_samples(folders: Folders = DEFAULT, evaluation: str | None = None, stage: str = "trained") -> pd.DataFrame:
    """A row an answer: run_id, evaluation, stage, index, id, prompt, target, response and `scorer.<name>` columns.

    Files that cannot be read are named in `frame.attrs["damaged"]`. Raises ConfigError for an evaluation of which no
    run has answers of this stage.
    """
    rows: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    known: set[str] = set()
    for path, _ in find_records(folders):
        try:
            files_in(path.parent / "samples", "")
        except DamagedFile as error:
            damaged[f"{path.parent.name} samples"] = shown(str(error))
        stored = evaluations_with_samples(path.parent, stage)
        known |= {*stored}
        for name in stored:
            if evaluation not in (None, name):
                continue
            try:
                answers = samples_of(path.parent, name, stage)
            except (DamagedFile, Unavailable) as error:
                damaged[f"{path.parent.name} {name}"] = shown(str(error))
                continue
            rows += [_sample_row(path.parent.name, name, stage, sample) for sample in answers]
    if evaluation is not None and evaluation not in known:
        accepted = ", ".join(sorted(known)) or f"none: no run here has stored answers ({stage})"
        raise ConfigError([Problem("evaluation", evaluation, accepted, nearest(evaluation, sorted(known)))])
    columns = ["run_id", "evaluation", "stage", "index", "id", "prompt", "target", "response"]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    frame.attrs["damaged"] = damaged
    return frame


def evaluations_with_samples(folder: Path, stage: str = "trained") -> list[str]:
    ending = f".{stage}.jsonl.zst"
    return sorted(p.name.removesuffix(ending).replace("__", "/") for p in (folder / "samples").glob(f"*{ending}"))


def samples_of(folder: Path, evaluation: str, stage: str = "trained") -> list[dict[str, Any]]:
    """The answers of one run to one evaluation, by index.

    Raises Unavailable without the file, DamagedFile for one that is cut or no such list.
    """
    path = samples.path_of(folder, evaluation, stage)
    if not is_there(path):
        raise Unavailable(f"{path}: no answers are stored for {evaluation} ({stage}).")
    return samples.read(path)


def run_row(folder: Path, record: Record) -> dict[str, Any]:
    """One record as the row that load_runs makes of it."""
    plain = vars(record)  # and not model_dump, which copies all and takes half of the time
    row: dict[str, Any] = {"run_id": record.run_id, "folder": str(folder)}
    row |= {name: value for name, value in plain.items() if not isinstance(value, _NESTED) and name != "run_id"}
    for part in ("losses", "tokens", "lengths", "seconds", "memory", "parameters", "facts", "failure", "placing"):
        row |= {f"{part}.{key}": value for key, value in _shallow(plain[part]).items()}
    for key, value in _shallow(record.provenance).items():
        if key in ("weights", "code"):
            row |= {f"provenance.{key}.{inner}": text for inner, text in _shallow(value).items()}
        elif key == "data":
            row["data"] = [_shallow(used) for used in value]
        else:
            row[f"provenance.{key}"] = value
    row |= {key: value for key, value in leaves(record.config, "config") if value != {}}
    row |= {f"score.{score.evaluation}.{score.stage}": score.value for score in record.scores if score.headline}
    row |= {f"forgotten.{evaluation}": lost for evaluation, lost in forgotten(record).items()}
    row |= {f"along.{s.evaluation}.{s.along:g}": s.value for s in record.scores if s.headline and s.along is not None}
    row["scores"] = [_shallow(score) for score in record.scores]
    row["tuning"] = _shallow(record.tuning) if record.tuning else None
    row["attempts"] = len(record.attempts)
    return row


_NESTED = (dict, list, FileContent)


def _shallow(part: FileContent | dict[str, Any] | None) -> dict[str, Any]:
    """The keys and values of a part of a record whose values are plain; none of a part that is not there."""
    return dict(vars(part)) if isinstance(part, FileContent) else part or {}


def forgotten(record: Record) -> dict[str, float]:
    """What the trained model lost of every second score against the base model without adapter; below 0: it gained."""
    seconds = [score for score in record.scores if score.retention and score.headline]
    before = {score.evaluation: score.rank for score in seconds if score.stage == "untrained"}
    return {
        score.evaluation: before[score.evaluation] - score.rank
        for score in seconds
        if score.stage in ("trained", "validation") and score.evaluation in before
    }


def _below(place: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """A line of a file with what its place says of it, which keys of the line cannot change."""
    return place | {key: value for key, value in line.items() if key not in place}


def _sample_row(run_id: str, evaluation: str, stage: str, sample: dict[str, Any]) -> dict[str, Any]:
    row = _below({"run_id": run_id, "evaluation": evaluation, "stage": stage}, sample)
    row.pop("scores", None)
    return row | {f"scorer.{name}": value for name, value in sample.get("scores", {}).items()}
