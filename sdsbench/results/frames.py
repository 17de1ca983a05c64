"""Run folders as pandas frames: the public API for your own analyses.

    runs = sdsbench.load_runs("results/runs")          # one row per run
    scores = sdsbench.load_scores("results/runs")      # one row per score
    steps = sdsbench.load_steps("results/runs")        # one row per line of metrics.jsonl
    samples = sdsbench.load_samples("results/runs", evaluation="gsm8k")   # one row per answer

The folder argument is one path or several: a folder of runs, a single run folder, or a bundle (`sdsbench bundle`).
A run that is found in several places counts once: the first copy of it that is finished. Unreadable runs and files are
left out and listed in `frame.attrs["damaged"]`: {run id or path: reason}.
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
from sdsbench.core.errors import ConfigError, DamagedFile, Problem, Unavailable
from sdsbench.core.garbage_collection import collection_paused
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
    """A copy of the same run in another folder or bundle, and how the two disagree (empty if they agree)."""

    origin: str
    disagreement: str


@dataclass(frozen=True)
class Found:
    """A readable record: its folder, the folder or bundle where it was found, and copies found elsewhere."""

    folder: Path
    record: Record
    origin: str
    copies: list[Copy] = field(default_factory=list)


def find_records(folders: Folders = DEFAULT) -> list[tuple[Path, str]]:
    """All record.json files of the folders and bundles as (path, folder or bundle), ordered by run id, then by place.

    Raises Unavailable for a path that does not exist, DamagedFile for a file that is no bundle.
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
    """The folder itself, or the folder of runs inside a bundle."""
    if place.is_file():
        return opened(place).folder / "runs"
    if not place.is_dir():
        raise Unavailable(
            f"{place}: no such folder of runs. Give one with --runs, or make runs first (sdsbench sweep)."
        )
    return place


def read_all(folders: Folders = DEFAULT) -> tuple[list[Found], dict[str, str]]:
    """All readable records, each run once, and the unreadable ones: {run id or path: reason}.

    If a run is in several places, the first finished one counts; the others are listed as its copies.
    """
    found: dict[str, Found] = {}
    damaged: dict[str, str] = {}
    for one in _readable(folders, damaged):
        _add(found, one)
    return list(found.values()), damaged


def _readable(folders: Folders, damaged: dict[str, str]) -> Iterator[Found]:
    """Yield the readable records; add the others to `damaged`: by run id, by folder if another copy is readable."""
    names = set()
    unreadable: dict[str, Path] = {}  # run id -> its folder
    for path, origin in find_records(folders):
        name = path.parent.name
        try:
            if os.path.islink(path.parent) and path.parent.resolve().parent != path.parent.parent.resolve():
                raise DamagedFile(f"{path.parent}: a link out of its folder, which is not followed. Give its target.")
            require_sound(path.parent)
            record = read_record(path)
        except DamagedFile as error:
            if name in damaged or name in names:
                damaged[shown(str(path.parent))] = shown(str(error))
            else:
                damaged[name], unreadable[name] = shown(str(error)), path.parent
            continue
        names.add(record.run_id)
        if record.run_id in unreadable:
            damaged[shown(str(unreadable.pop(record.run_id)))] = damaged.pop(record.run_id)
        yield Found(path.parent, record, origin)


def _add(found: dict[str, Found], new: Found) -> None:
    """Add a record; if its run is there already, one of the two becomes a copy of the other."""
    old = found.setdefault(new.record.run_id, new)
    if old is new:
        return
    kept, other = (new, old) if _supersedes(new.record.status, old.record.status) else (old, new)
    kept.copies.extend([*other.copies, Copy(other.origin, disagreement(kept.record, other.record))])
    found[new.record.run_id] = kept


def _supersedes(new: str, old: str) -> bool:
    """Whether a record with status `new` replaces an earlier one of the same run with status `old`."""
    return new == "done" != old


def disagreement(one: Record, other: Record) -> str:
    """How the numbers of two records of one run differ, times and attempts excepted; empty if they are equal."""
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
    """One row per run. Nested parts become dotted columns (seconds.train, provenance.device, config.train.batch_size);
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
    """The columns of load_runs; NaN if a run lacks the value. They are filled run by run and no rows are kept: the key
    texts of each row would take more memory than its values, which matters for thousands of runs.
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
    if replaced:  # remove columns that only the replaced row had
        return {name: column for name, column in columns.items() if any(value is not math.nan for value in column)}
    return columns


def load_scores(folders: Folders = DEFAULT) -> pd.DataFrame:
    """One row per score of a run, with the columns that identify the run."""
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
    """One row per line of metrics.jsonl, with run_id; `kind` (train, method, eval, probe, held_out, memory) filters.

    The last line of a run that is being written may be cut; it is left out. Logs that cannot be read are named in
    `frame.attrs["damaged"]`. Raises ConfigError for another kind.
    """
    if kind is not None and kind not in metrics.KINDS:
        raise ConfigError([Problem("kind", kind, ", ".join(metrics.KINDS), nearest(kind, metrics.KINDS))])
    rows: list[dict[str, Any]] = []
    records, damaged = read_all(folders)
    for found in records:
        path = found.folder / "metrics.jsonl"
        try:
            lines = metrics.read(path)
        except DamagedFile as error:
            damaged[shown(str(path))] = shown(str(error))
            continue
        rows += [_below({"run_id": found.record.run_id}, line) for line in lines if kind in (None, line["kind"])]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["run_id", "kind", "step"])
    frame.attrs["damaged"] = damaged
    return frame


def load_samples(folders: Folders = DEFAULT, evaluation: str | None = None, stage: str = "trained") -> pd.DataFrame:
    """One row per answer: run_id, evaluation, stage, index, id, prompt, target, response, `scorer.<name>` columns.

    Unreadable files are listed in `frame.attrs["damaged"]`. Raises ConfigError if no run has answers to `evaluation`
    at this stage.
    """
    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    records, damaged = read_all(folders)
    for run in records:
        run_id = run.record.run_id
        try:
            stored = _evaluations(files_in(run.folder / "samples", ""), stage)
        except DamagedFile as error:
            damaged[f"{run_id} samples"] = shown(str(error))
            continue
        known |= {*stored}
        for name in stored:
            if evaluation not in (None, name):
                continue
            try:
                answers = samples_of(run.folder, name, stage)
            except (DamagedFile, Unavailable) as error:
                damaged[f"{run_id} {name}"] = shown(str(error))
                continue
            rows += [_sample_row(run_id, name, stage, sample) for sample in answers]
    if evaluation is not None and evaluation not in known:
        accepted = ", ".join(sorted(known)) or f"none: no run here has stored answers ({stage})"
        raise ConfigError([Problem("evaluation", evaluation, accepted, nearest(evaluation, sorted(known)))])
    columns = ["run_id", "evaluation", "stage", "index", "id", "prompt", "target", "response"]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    frame.attrs["damaged"] = damaged
    return frame


def evaluations_with_samples(folder: Path, stage: str = "trained") -> list[str]:
    """Names of the evaluations of which a run folder has stored answers at this stage."""
    return _evaluations((folder / "samples").glob("*"), stage)


def _evaluations(paths: Iterable[Path], stage: str) -> list[str]:
    ending = f".{stage}.jsonl.zst"
    return sorted(path.name.removesuffix(ending).replace("__", "/") for path in paths if path.name.endswith(ending))


def samples_of(folder: Path, evaluation: str, stage: str = "trained") -> list[dict[str, Any]]:
    """The answers of one run to one evaluation, by index.

    Raises Unavailable if the file does not exist, DamagedFile if it is truncated or no list of answers.
    """
    path = samples.path_of(folder, evaluation, stage)
    if not is_there(path):
        raise Unavailable(f"{path}: no answers are stored for {evaluation} ({stage}).")
    return samples.read(path)


def run_row(folder: Path, record: Record) -> dict[str, Any]:
    """The row of load_runs for one record, as {column: value}."""
    plain = vars(record)  # not model_dump: its copies would take half of the time
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
    row |= {f"score.{s.evaluation}.{s.stage}": s.value for s in record.scores if s.headline and s.along is None}
    row |= {f"forgotten.{evaluation}": lost for evaluation, lost in forgotten(record).items()}
    row |= {f"along.{s.evaluation}.{s.along:g}": s.value for s in record.scores if s.headline and s.along is not None}
    row["scores"] = [_shallow(score) for score in record.scores]
    row["tuning"] = _shallow(record.tuning) if record.tuning else None
    row["attempts"] = len(record.attempts)
    return row


_NESTED = (dict, list, FileContent)


def _shallow(part: FileContent | dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a part of a record, nested parts unconverted; empty if the part is None."""
    return dict(vars(part)) if isinstance(part, FileContent) else part or {}


def forgotten(record: Record) -> dict[str, float]:
    """Forgetting per retention score: base model minus trained model, positive if training made it worse."""
    seconds = [score for score in record.scores if score.retention and score.headline]
    before = {score.evaluation: score.rank for score in seconds if score.stage == "untrained"}
    return {
        score.evaluation: before[score.evaluation] - score.rank
        for score in seconds
        if score.stage in ("trained", "validation") and score.evaluation in before
    }


def _below(place: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """A line of a file plus the identifying keys of `place`, which win over equal keys of the line."""
    return place | {key: value for key, value in line.items() if key not in place}


def _sample_row(run_id: str, evaluation: str, stage: str, sample: dict[str, Any]) -> dict[str, Any]:
    row = _below({"run_id": run_id, "evaluation": evaluation, "stage": stage}, sample)
    row.pop("scores", None)
    return row | {f"scorer.{name}": value for name, value in sample.get("scores", {}).items()}
