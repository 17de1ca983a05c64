"""Run folders as pandas frames: the public API for own analyses.

    runs = sdsbench.load_runs("results/runs")          # a row a run
    scores = sdsbench.load_scores("results/runs")      # a row a number
    steps = sdsbench.load_steps("results/runs")        # a row a line of metrics.jsonl
    samples = sdsbench.load_samples("results/runs", evaluation="gsm8k")   # a row an answer

A folder argument is one folder or several; each may hold run folders or be one. Damaged records are left out and
named in `frame.attrs["damaged"]`: {path: what is wrong}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import zstandard

from sdsbench.core import samples
from sdsbench.core import step_log as metrics
from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record

Folders = str | Path | Sequence[str | Path]
DEFAULT = "results/runs"


def find_records(folders: Folders = DEFAULT) -> list[Path]:
    """Every record.json of the folders, in the order of run ids. Raises Unavailable for a folder that is not there."""
    found: dict[Path, None] = {}
    for folder in [folders] if isinstance(folders, str | Path) else folders:
        root = Path(folder)
        if not root.is_dir():
            raise Unavailable(
                f"{root}: no such folder of runs. Give one with --runs, or make runs first (sdsbench sweep)."
            )
        if (root / "record.json").is_file():
            found[root / "record.json"] = None
        for path in sorted(root.glob("*/record.json")):
            found[path] = None
    return sorted(found, key=lambda path: (path.parent.name, str(path)))


def read_all(folders: Folders = DEFAULT) -> tuple[list[tuple[Path, Record]], dict[str, str]]:
    """(folder, record) of every readable record, and what is wrong with each of the others.

    A run id that occurs twice with different content is damage too: one of the two was altered.
    """
    records: list[tuple[Path, Record]] = []
    damaged: dict[str, str] = {}
    seen: dict[str, Record] = {}
    for path in find_records(folders):
        try:
            record = read_record(path)
        except DamagedFile as error:
            damaged[path.parent.name] = str(error)
            continue
        earlier = seen.setdefault(record.run_id, record)
        if earlier is record:
            records.append((path.parent, record))
        elif earlier.checksum != record.checksum:
            damaged[f"{path.parent.name} (second copy)"] = f"{path}: another record has run id {record.run_id}"
    return records, damaged


def load_runs(folders: Folders = DEFAULT) -> pd.DataFrame:
    """A row a run. Nested parts become dotted columns (seconds.train, provenance.device, config.train.batch_size);
    a headline score becomes a column `score.<evaluation>.<stage>`; `scores`, `data` and `tuning` stay as plain objects.
    """
    records, damaged = read_all(folders)
    frame = pd.DataFrame([run_row(folder, record) for folder, record in records])
    if frame.empty:
        frame = pd.DataFrame(
            columns=["run_id", "folder", "status", "model", "method", "task", "seed", "rank", "scores"]
        )
    frame.attrs["damaged"] = damaged
    return frame


def load_scores(folders: Folders = DEFAULT) -> pd.DataFrame:
    """A row a score of a run, with what names the run."""
    records, damaged = read_all(folders)
    names = ("run_id", "status", "model", "method", "task", "train_set", "protocol", "seed", "rank", "lr")
    frame = pd.DataFrame(
        [
            {name: getattr(record, name) for name in names} | score.model_dump() | {"undecided": score.undecided}
            for _, record in records
            for score in record.scores
        ],
        columns=[*names, "evaluation", "version", "scorer", "stage", "value", "stderr", "n", "headline", "undecided"],
    )
    frame.attrs["damaged"] = damaged
    return frame


def load_steps(folders: Folders = DEFAULT, kind: str | None = None) -> pd.DataFrame:
    """A row a line of metrics.jsonl, with run_id; `kind` (train, refresh, eval, probe) keeps one kind.

    The last line of a run that is being written may be cut; it is left out.
    """
    rows: list[dict[str, Any]] = []
    for path in find_records(folders):
        rows += [
            {"run_id": path.parent.name, **line}
            for line in metrics.read(path.parent / "metrics.jsonl")
            if kind in (None, line.get("kind"))
        ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["run_id", "kind", "step"])


def load_samples(folders: Folders = DEFAULT, evaluation: str | None = None, stage: str = "trained") -> pd.DataFrame:
    """A row an answer: run_id, evaluation, stage, index, id, prompt, target, response and `scorer.<name>` columns."""
    rows: list[dict[str, Any]] = []
    for path in find_records(folders):
        for name in evaluations_with_samples(path.parent, stage):
            if evaluation in (None, name):
                rows += [
                    _sample_row(path.parent.name, name, stage, sample)
                    for sample in samples_of(path.parent, name, stage)
                ]
    columns = ["run_id", "evaluation", "stage", "index", "id", "prompt", "target", "response"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def evaluations_with_samples(folder: Path, stage: str = "trained") -> list[str]:
    ending = f".{stage}.jsonl.zst"
    return sorted(p.name.removesuffix(ending).replace("__", "/") for p in (folder / "samples").glob(f"*{ending}"))


def samples_of(folder: Path, evaluation: str, stage: str = "trained") -> list[dict[str, Any]]:
    """The answers of one run to one evaluation, by index.

    Raises Unavailable without the file, DamagedFile for one that is cut or no such list.
    """
    path = samples.path_of(folder, evaluation, stage)
    if not path.is_file():
        raise Unavailable(f"{path}: no answers are stored for {evaluation} ({stage}).")
    try:
        stream = zstandard.ZstdDecompressor().decompressobj()
        lines = stream.decompress(path.read_bytes()).decode("utf-8").splitlines()
        if not stream.eof:
            raise DamagedFile(f"{path}: cut short. Set it aside and evaluate the run again.")
        return sorted((json.loads(line) for line in lines), key=lambda row: row["index"])
    except (zstandard.ZstdError, UnicodeDecodeError, json.JSONDecodeError, KeyError) as error:
        raise DamagedFile(
            f"{path}: not a list of answers ({error}). Set it aside and evaluate the run again."
        ) from None


def run_row(folder: Path, record: Record) -> dict[str, Any]:
    """One record as the row that load_runs makes of it."""
    plain = record.model_dump()
    row: dict[str, Any] = {"run_id": record.run_id, "folder": str(folder)}
    row |= {name: value for name, value in plain.items() if not isinstance(value, dict | list) and name != "run_id"}
    for part in ("losses", "tokens", "seconds", "memory", "parameters", "facts", "failure", "placing"):
        row |= {f"{part}.{key}": value for key, value in (plain[part] or {}).items()}
    for key, value in (plain["provenance"] or {}).items():
        if key in ("weights", "code"):
            row |= {f"provenance.{key}.{inner}": text for inner, text in value.items()}
        elif key == "data":
            row["data"] = value
        else:
            row[f"provenance.{key}"] = value
    row |= _dotted("config", plain["config"])
    row |= {f"score.{score.evaluation}.{score.stage}": score.value for score in record.scores if score.headline}
    return row | {"scores": plain["scores"], "tuning": plain["tuning"], "attempts": len(record.attempts)}


def _dotted(prefix: str, tree: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _dotted(f"{prefix}.{key}", value) if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat


def _sample_row(run_id: str, evaluation: str, stage: str, sample: dict[str, Any]) -> dict[str, Any]:
    row = {"run_id": run_id, "evaluation": evaluation, "stage": stage}
    row |= {key: value for key, value in sample.items() if key != "scores"}
    return row | {f"scorer.{name}": value for name, value in sample.get("scores", {}).items()}
