"""The lines below a table: what it was made from, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sdsbench.results.tables.cells import Cell
from sdsbench.results.tables.definition import Table
from sdsbench.results.tables.measures import score_of
from sdsbench.results.tables.published import values
from sdsbench.results.tables.runs import Run
from sdsbench.tasks.graders.titles import described


def footer(table: Table, cells: Mapping[tuple[str, str], Cell], excluded: Mapping[str, str]) -> list[str]:
    """Plain sentences, in a fixed order, without a clock."""
    runs = {run.id: run for cell in cells.values() for run in cell.runs}
    unfinished = {run.id: run for cell in cells.values() for run in cell.unfinished}
    used = [runs[run_id] for run_id in sorted(runs)]
    lines = [
        "Mean ± half-width of the 95 % t-interval over seeds (number of seeds). Bold: better than the second by a "
        "paired test, Holm-adjusted p < 0.05 over the table; underlined: second."
    ]
    tests = Counter(cell.test for cell in cells.values() if cell.test)
    if tests:
        lines.append("Paired tests: " + ", ".join(f"{name} ({count})" for name, count in sorted(tests.items())) + ".")
    if table.paper:
        lines.append(_paper(table))
    if any(cell.status == "counted" for cell in cells.values()):
        lines.append("† counted on the architecture, no run.")
    lines.append(f"Runs: {len(runs)} finished, {len(unfinished)} not{_statuses(list(unfinished.values()))}.")
    if used:
        lines += [_commits(used), _devices(used), _data(used), _scorers(table, used), _undecided(table, used)]
        lines.append(_tuning(used))
    lines.append(_excluded(excluded))
    return [line for line in (*lines, table.note) if line]


def _paper(table: Table) -> str:
    frame = values(table.paper)
    if frame.empty:
        return "Paper: no published value could be obtained; its cells are empty."
    sources = sorted(set(frame.loc[frame["table"] == table.number, "source"]))
    return f"Paper: {'; '.join(sources)}; second line of a cell: printed value and ours - paper."


def _statuses(runs: list[Run]) -> str:
    counts = Counter(run.record.status for run in runs)
    return f" ({', '.join(f'{count} {status}' for status, count in sorted(counts.items()))})" if counts else ""


def _commits(runs: list[Run]) -> str:
    known = [run.record.provenance for run in runs if run.record.provenance]
    commits = Counter(p.git_commit or "unknown" for p in known)
    codes = sorted({p.code["core"][:12] for p in known})
    dirty = sum(bool(p.uncommitted) for p in known)
    text = ", ".join(f"{commit[:12]} ({count})" for commit, count in sorted(commits.items()))
    return f"Commit (runs): {text}; runs of code that was not committed: {dirty}; core code: {', '.join(codes)}."


def _devices(runs: list[Run]) -> str:
    devices = Counter(f"{p.device}, {p.dtype}" for run in runs if (p := run.record.provenance))
    return "Devices (runs): " + "; ".join(f"{name} ({count})" for name, count in sorted(devices.items())) + "."


def _data(runs: list[Run]) -> str:
    used = {
        f"{d.dataset} {d.split}: {d.source}" + (f" at {d.revision[:12]}" if d.revision else "") + f", {d.rows} rows"
        for run in runs
        if run.record.provenance
        for d in run.record.provenance.data
    }
    return "Data: " + "; ".join(sorted(used)) + "."


def _scorers(table: Table, runs: list[Run]) -> str:
    found = set()
    for column in table.columns:
        for run in runs:
            score = score_of(run, column) if column.measure == "score" and not column.parts else None
            if score is not None:
                by = score.scorer + described(score.evaluation, score.scorer)
                found.add(f"{score.evaluation} v{score.version} by {by}, {score.n} questions, {score.stage}")
    return "Scores: " + "; ".join(sorted(found)) + "." if found else ""


def _undecided(table: Table, runs: list[Run]) -> str:
    """Answers that count as not correct because their grader hit a limit."""
    columns = [column for column in table.columns if column.measure == "score" and not column.parts]
    scores = [(run.id, score) for run in runs for column in columns if (score := score_of(run, column)) is not None]
    found = sorted({f"{run_id} {s.evaluation} by {s.scorer}: {s.note}" for run_id, s in scores if s.note})
    if not found:
        return ""
    return (
        "Undecided answers, counted as not correct: " + "; ".join(found) + ". `--scorer EVALUATION=SCORER` grades them "
        "again with ten times the time."
    )


def _tuning(runs: list[Run]) -> str:
    tuned = [run.record.tuning for run in runs if run.record.tuning]
    if not tuned:
        return "Tuning: none; every rate is the protocol's."
    budgets = sorted({f"{t.budget} runs for {t.key} on {t.evaluation} ({t.scorer}), seeds {t.seeds}" for t in tuned})
    untuned = len(runs) - len(tuned)
    rest = f"; {untuned} runs without" if untuned else ""
    return f"Tuning budget per method: {'; '.join(budgets)}{rest}."


def _excluded(excluded: Mapping[str, str]) -> str:
    if not excluded:
        return "Excluded runs: none."
    reasons: dict[str, list[str]] = {}
    for run_id, reason in sorted(excluded.items()):
        reasons.setdefault(reason, []).append(run_id)
    parts = [
        f"{len(ids)} ({reason}): {', '.join(ids[:5])}{f' and {len(ids) - 5} more' if len(ids) > 5 else ''}"
        for reason, ids in sorted(reasons.items())
    ]
    return "Excluded runs: " + "; ".join(parts) + "."
