"""Training runs of a bundle again: selecting the runs, placing their configurations here, training one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdsbench.core.errors import ConfigError, DiskRefuses, Interrupted, Problem, Refused, SdsbenchError
from sdsbench.core.hashing import sha256_of
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.core.spelling import nearest
from sdsbench.results import setting
from sdsbench.results.bundles.opened import Bundle
from sdsbench.results.frames import Found, read_all
from sdsbench.results.reproduction.differences import ReproducedRun, compared
from sdsbench.runs.configuration.compose import from_tree
from sdsbench.runs.configuration.identity import COST_KEYS, placed, run_id, unplaced
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.execute import execute
from sdsbench.runs.origin import plugins_in
from sdsbench.runs.run_context import RunContext


@dataclass(frozen=True)
class LocalSettings:
    """The user's settings for this machine: output folder, placing keys, trusted plugins, a model's folder."""

    root: Path
    placing: Mapping[str, Any]
    plugins: Sequence[str] = ()
    model: Path | None = None


def chosen(bundle: Bundle, sample: int | None, ids: Sequence[str]) -> list[Found]:
    """The runs to train again: those with these ids, else `sample` of the finished and tested runs, else all of those.

    A sample takes the methods in turn and depends on the bundle alone, so everybody draws the same runs. Raises Refused
    if a run was changed or none is finished, ConfigError for an id that is not in the bundle.
    """
    found, damaged = read_all(bundle.path)
    by_id = {one.record.run_id: one for one in found}
    if ids:
        return [by_id[_completed(identity, by_id, damaged)] for identity in ids]
    tested = [one for one in found if one.record.status == "done" and not setting.tuning_run(one.record)]
    if not tested:
        raise Refused(f"{bundle.path}: it has no finished run that was tested.")
    order = sorted(tested, key=lambda one: sha256_of([bundle.manifest.checksum, one.record.run_id]))
    if sample is None:
        return order
    rounds: dict[str, int] = {}
    ranked = []
    for place, one in enumerate(order):
        rounds[one.record.method] = rounds.get(one.record.method, 0) + 1
        ranked.append((rounds[one.record.method], place, one))
    return [one for *_, one in sorted(ranked, key=lambda entry: entry[:2])[:sample]]


def _completed(text: str, known: Mapping[str, Found], damaged: Mapping[str, str]) -> str:
    if reasons := [reason for name, reason in damaged.items() if name.startswith(text)]:
        raise Refused(reasons[0])
    fitting = [identity for identity in known if identity.startswith(text)]
    if len(fitting) != 1:
        raise ConfigError(
            [Problem("--run", text, "the id of a run of the bundle, or its beginning", nearest(text, known))]
        )
    return fitting[0]


def configuration(record: Record, local: LocalSettings) -> RunConfig:
    """The run's configuration with this machine's placing; threads as in the original unless `local` sets them.

    Raises Refused if it needs a plugin that the user did not allow: a bundle could name any code to be run.
    """
    parts = record.provenance.code if record.provenance else {}
    needed = plugins_in(parts)
    if missing := [name for name in needed if name not in local.plugins]:
        raise Refused(
            f"run {record.run_id} needs the plugin {', '.join(missing)}, which is code. Look at it, install it, and "
            f"give --plugin {missing[0]}."
        )
    placing = {key: value for key, value in record.placing.items() if key in COST_KEYS and key != "device"}
    if record.provenance is not None:
        placing["threads"] = record.provenance.threads
    placing |= {**local.placing, "output_root": str(local.root), "plugins": list(needed)}
    tree = placed(unplaced(record.config), placing)
    if tree["model"].get("source") == "folder":
        tree["model"] = {**tree["model"], "location": str(local.model) if local.model else None}
    return from_tree(tree)


def retrain(
    bundle: Bundle, runs: Sequence[Found], local: LocalSettings, log: Callable[[str], None]
) -> list[ReproducedRun]:
    """Train each run again (resuming or reusing what is below `local.root`) and compare it with the original.

    If a run cannot be trained here, the others continue. Raises Interrupted and DiskRefuses; the same command resumes.
    """
    siblings = [one.record for one in read_all(bundle.path)[0] if one.record.status == "done"]
    results = []
    for number, theirs in enumerate(runs, 1):
        identity = theirs.record.run_id
        log(f"{number} of {len(runs)}: run {identity}, {theirs.record.method} on {theirs.record.task}")
        try:
            config = configuration(theirs.record, local)
            record = execute(config, RunContext(tuning=theirs.record.tuning))
            folder = local.root / record.run_id
            ours = Found(folder, read_record(folder / "record.json"), str(local.root))
            results.append(compared(theirs, ours, siblings, bundle.manifest.adapters.get(identity)))
            if record.run_id != identity:
                log(f"  here its id is {record.run_id}: {_why_other_id(config)}")
        except (Interrupted, DiskRefuses):
            raise
        except SdsbenchError as error:
            reason = str(error)
            results.append(ReproducedRun(identity, "not reproduced", theirs, reason=reason, exit_code=error.exit_code))
            log(f"  not reproduced: {reason}")
    return results


def _why_other_id(config: RunConfig) -> str:
    if config.model.source == "folder":
        return "the folder of its model is another"
    return f"this version names its configuration otherwise ({run_id(config)})"
