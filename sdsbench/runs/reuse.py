"""Decide whether existing results in a run's folder may be reused for the requested run.

The folder's name guarantees an equal configuration. The code that the run uses, its base weights and its data must be
unchanged too. Every change is reported, and old results are renamed, never deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from sdsbench.core.errors import Refused, Unavailable
from sdsbench.core.record import Record, Tuning
from sdsbench.core.texts import text
from sdsbench.runs.configuration.identity import cost_keys
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.origin import CODE, DATA, START, WEIGHTS, current, data_hashes, data_of, differing, recorded_origin
from sdsbench.runs.run_context import ActiveRun
from sdsbench.runs.run_data import load_run
from sdsbench.training import checkpoint
from sdsbench.training.checkpoint import Checkpoint
from sdsbench.training.probes.observer import FOLDER as PROBES


def earlier_results(run: ActiveRun) -> tuple[Record | None, Checkpoint | None]:
    """(record of the finished run, or None; newest checkpoint of an interrupted run, or None).

    With force=true, existing results are set aside. Raises Refused if they were made with other code, weights or data.
    """
    if run.config.force:
        _set_aside_trained(run)
        run.keeper.start_over(run.config)
        checkpoint.remove_all(run.folder)
        return None, None
    if run.keeper.finished:
        provenance = run.keeper.record.provenance
        assert provenance is not None, "a finished record has one"
        _refuse_if_changed(run, recorded_origin(provenance), f"finished run {run.folder.name}")
        return run.keeper.record, None
    found, remarks = checkpoint.newest(run.folder)
    for remark in remarks:
        run.log(remark)
    if found is not None:
        _refuse_if_changed(run, found.origin, f"{found.path.name} of run {run.folder.name}")
    else:
        _set_aside_trained(run)  # its record or its checkpoints were damaged or removed
    return None, found


def _set_aside_trained(run: ActiveRun) -> None:
    """Rename the trained tensors and probes of an earlier training, as its record is renamed.

    The new training may save none, or fail before it saves; the old ones would then be exported as the new run's.
    """
    of = run.keeper.record.checksum[:8] or uuid4().hex[:8]  # a record that is not there has no checksum
    for name in ("adapter", PROBES):
        if (path := run.folder / name).exists():
            path.rename(run.folder / f"{name}.replaced-{of}")


def reuse_record(run: ActiveRun, record: Record) -> None:
    """Tell the user that a finished run was found; add to its record how its tuned value was chosen, if that is new."""
    tuning: Tuning | None = run.context.tuning
    if tuning is not None and record.tuning != tuning:
        record.tuning = tuning  # the same value was chosen again with a larger tuning budget
        run.keeper.write()
    missing_probes = run.config.probe.every is not None and not (run.folder / PROBES).exists()
    run.log(
        f"found finished run {run.folder.name}; nothing trained "
        f"({'it has no probes: ' if missing_probes else ''}force=true runs it again)"
    )
    if run.config.tracker.name != "none":
        run.log(f"nothing is sent to {run.config.tracker.name}; `sdsbench replay {run.folder.name}` sends it")
    then, now = record.placing, cost_keys(run.config)
    changed = [key for key in now if then.get(key, now[key]) != now[key]]
    differences = [f"{key}={text(then[key])} (now {text(now[key])})" for key in changed]
    if differences:
        run.log(f"what it cost was measured with {', '.join(differences)}")


def current_origin(config: RunConfig, then: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(origin that the run would have now, messages on what could not be compared).

    Weights or data that no longer exist on this machine count as unchanged: their hashes are copied from `then`.
    """
    remarks: list[str] = []
    data = data_of(then)
    if config.data.source != "embedded":  # for embedded data, the generators' code is compared instead
        try:
            data = data_hashes(load_run(config).used())
        except Unavailable as error:
            remarks.append(f"its data could not be compared with what is here now: {error}")
    return current(config, then, data, remarks), remarks


def _refuse_if_changed(run: ActiveRun, then: Mapping[str, str], what: str) -> None:
    now, remarks = current_origin(run.config, then)
    for remark in remarks:
        run.log(remark)
    parts = differing(then, now)
    if not parts:
        return
    lines = [f"  {name}: then {_short(then.get(name))}, now {_short(now.get(name))}" for name in parts]
    raise Refused(
        f"{what} was made with other {_kinds(parts)} than are here now:\n" + "\n".join(lines) + "\n"
        "Its numbers are not those of a run today. force=true runs it again and sets the old record aside; another "
        "output_root=FOLDER keeps both; going back to what it was made with takes it up as it is."
    )


def _kinds(parts: list[str]) -> str:
    kinds = ["code"] * any(part.startswith(CODE) for part in parts)
    kinds += ["base weights"] * (WEIGHTS in parts)
    kinds += ["trained tensors to start from"] * (START in parts)
    kinds += ["data"] * any(part.startswith(DATA) for part in parts)
    return " and ".join(kinds)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
