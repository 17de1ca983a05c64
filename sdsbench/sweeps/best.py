"""The finished runs of a plan, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdsbench.core.errors import ConfigError, DamagedFile, Problem, Unavailable
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.sweeps.plan import Plan

Finished = tuple[Path, Record]


def finished_runs(plan: Plan, roots: Sequence[Path] | None = None) -> tuple[list[Finished], dict[str, str]]:
    """((folder, record) of every finished run except tuning runs, in the plan's order; {id of a damaged run: reason}).

    `roots` are the folders that contain runs, by default the plan's own. Raises Unavailable if no run is finished,
    DamagedFile if that is so because records are damaged.
    """
    places = roots or [Path(plan.placing["output_root"])]
    found: list[Finished] = []
    damaged: dict[str, str] = {}
    for identity, planned in plan.manifest.runs.items():
        folder = next((root / identity for root in places if (root / identity / "record.json").exists()), None)
        if folder is None or planned.role == "tuning":
            continue
        try:
            record = read_record(folder / "record.json")
        except DamagedFile as error:
            damaged[identity] = str(error)
            continue
        if record.status == "done":
            found.append((folder, record))
    if damaged and not found:
        raise DamagedFile(
            f"plan {plan.manifest.name}: no finished run of it can be read: {'; '.join(damaged.values())}"
        )
    if not found:
        raise Unavailable(f"plan {plan.manifest.name}: no run of it is finished in {', '.join(map(str, places))}.")
    return found, damaged


def best_of(found: Sequence[Finished]) -> tuple[Path, str]:
    """(folder of the run with the best mean headline score among runs that saved weights, reason for this choice).

    Raises ConfigError if the runs belong to several tasks or models, whose scores cannot be compared, or none saved
    its weights.
    """
    settings = {(record.model, record.task, record.train_set) for _, record in found}
    if len(settings) > 1:
        shown = ", ".join(sorted(f"{model} on {task}" for model, task, _ in settings))
        raise ConfigError(
            [Problem("--best", shown, "runs of one model and task", "Name the run in place of the plan.")]
        )
    saved = [(folder, record) for folder, record in found if (folder / "adapter").is_dir()]
    scored = [(score, folder, record) for folder, record in saved if (score := rank_of(record)) is not None]
    if not scored:
        accepted = "finished runs with scores that saved what they trained"
        raise ConfigError([Problem("--best", len(found), accepted, "Train with train.save=adapter, or all.")])
    score, folder, record = max(scored, key=lambda item: item[0])
    names = ", ".join(
        sorted({s.evaluation for s in record.scores if s.headline and s.stage == "trained" and not s.retention})
    )
    left_out = f" ({len(found) - len(scored)} saved nothing)" if len(scored) < len(found) else ""
    return folder, (
        f"run {folder.name} is the best of {len(found)} finished runs{left_out} by {names}: {abs(score):.4g}. The best "
        "of several is better on these questions than it will be on others."
    )


def rank_of(record: Record) -> float | None:
    """Mean of the headline scores, with the sign such that higher is better."""
    scores = (score for score in record.scores if score.headline and score.stage == "trained")
    values = [score.rank for score in scores if not score.retention]
    return sum(values) / len(values) if values else None
