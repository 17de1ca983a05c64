"""Print a plan's content, the state of its runs and the remaining cost, for `plan` and `status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdsbench.core.console import narrowest, print_table, print_wrapped, terminal_width
from sdsbench.core.texts import counted, number_of
from sdsbench.sweeps.cost_lines import print_costs
from sdsbench.sweeps.plan import Plan, TunedCell
from sdsbench.sweeps.states import STALE, SlotState, States, needed_at_most, states_of

FEW = 40  # largest number of slots listed without --all


def print_overview(
    plan: Plan, placing: Mapping[str, Any], everything: bool, notes: Mapping[str, str] = {}, memory: bool = False
) -> States:
    """Print counts, a table of the runs, the time left, and with `memory` the memory of a run; return the states.

    `notes` holds SLURM's state by slot key.
    """
    states = states_of(plan, placing)
    slots = needed_at_most(plan, states.all())
    counts = states.counts_of(slots)
    at_most = "at most " if any(slot.slot.extends and slot.state == "waiting" for slot in slots) else ""
    number_of_runs = sum(slot.state != "unneeded" for slot in slots)
    print_wrapped(f"{at_most}{number_of(number_of_runs, 'run')}: {counted(counts)}")
    if "preempted" in counts:
        print_wrapped(
            "preempted: stopped by a signal (Ctrl-C, or the scheduler's), state saved; the next sweep resumes it"
        )
    if plan.manifest.cells:
        print_wrapped(_tuning_text(plan))
    if changed := sorted({part for slot in slots if slot.state == STALE for part in slot.changed}):
        print_wrapped(
            f"stale: made with other {', '.join(changed)} than today's. `sdsbench sweep {plan.folder} --force` runs "
            "them again and sets their records aside"
        )
    shown = slots if everything else slots[:FEW]
    if len(plan.varying) or len(slots) == 1:
        _print_differences(plan, shown, notes)
    if len(shown) < len(slots):
        print_wrapped(f"... and {len(slots) - len(shown)} more (--all lists them); values that differ:")
        for key in plan.varying:
            values = dict.fromkeys(run.point[key] for run in plan.manifest.runs.values() if key in run.point)
            print_wrapped(f"  {key}: {', '.join(list(values)[:12])}{' ...' if len(values) > 12 else ''}")
    for identity, message in states.damaged.items():
        print_wrapped(f"damaged: {identity}: {message} The next worker sets it aside and runs it again.")
    print_costs(plan, slots, memory)
    return states


def _print_differences(plan: Plan, slots: Sequence[SlotState], notes: Mapping[str, str]) -> None:
    """A table of the runs with a column for each key that differs, or one column of all keys if these do not fit."""
    noted = any(notes.get(slot.slot.key) for slot in slots)
    rows: list[tuple[str, list[str], list[str]]] = []
    for slot in slots:
        cell = plan.manifest.cells.get(slot.slot.cell or "")
        point = slot.run.point if slot.run else _waiting_point(plan, cell, str(slot.slot.seed)) if cell else {}
        words = [notes.get(slot.slot.key, "")] if noted else []
        values = [point.get(key, "(tuned)" if cell and key == cell.key else "") for key in plan.varying]
        rows.append((slot.identity or slot.slot.key, values, [slot.state, *words, _failure(slot)]))
    last = ["state", *(["SLURM"] if noted else []), "message"]
    heads, table = ["run", *plan.varying, *last], [[run, *values, *rest] for run, values, rest in rows]
    if (width := terminal_width()) is not None and narrowest(heads, table) > width:
        heads = ["run", "values that differ", *last]
        pairs = [[f"{key}={value}" for key, value in zip(plan.varying, values, strict=True)] for _, values, _ in rows]
        table = [[run, " ".join(words), *rest] for (run, _, rest), words in zip(rows, pairs, strict=True)]
    print_table(heads, table, keys=2)


def _waiting_point(plan: Plan, cell: TunedCell, seed: str) -> dict[str, str]:
    """The overrides of a final run without those of the tuned key: equal for all values that tuning may choose."""
    point = plan.manifest.runs[cell.final[seed][0]].point
    return {key: value for key, value in point.items() if key != cell.key}


def _failure(slot: SlotState) -> str:
    """The first line of what ended the run; empty if its last attempt runs, or died without a message."""
    failure = slot.record.ended_by if slot.record else None
    return failure.message.partition("\n")[0][:100] if failure else ""


def _tuning_text(plan: Plan) -> str:
    cells = list(plan.manifest.cells.values())
    values, seeds, extend = len(cells[0].declared), len(cells[0].seeds), cells[0].extend
    more = f", up to {extend} more at an end while the best is the last one there" if extend else ""
    return (
        f"tuned: {cells[0].key} in {len(cells)} cells, the same budget for each: {values * seeds} runs on validation "
        f"rows ({values} grid points x {seeds} seeds{more}), then the best one with fresh seeds, tested"
    )
