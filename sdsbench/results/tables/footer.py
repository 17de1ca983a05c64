"""The notes below a table: the runs it is made from, the tests, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sdsbench.core.grouped import grouped
from sdsbench.core.record import Tuning
from sdsbench.core.texts import counted, numbered, some_of, span
from sdsbench.data import catalogue
from sdsbench.results.learned import SYMBOL, floor_of
from sdsbench.results.tables import contrast
from sdsbench.results.tables.cells import TableCell
from sdsbench.results.tables.definition import Table
from sdsbench.results.tables.loaded_runs import Run, problems_of
from sdsbench.results.tables.published import values
from sdsbench.results.tables.run_values import SHARED, cores_of_others, is_cost, own_cost, score_of
from sdsbench.tasks.graders.grader_titles import described

Cells = Mapping[tuple[str, str], TableCell]


def footer(table: Table, cells: Cells, excluded: Mapping[str, str], pairs: int) -> list[str]:
    """Sentences in a fixed order, without dates. `pairs`: number of method pairs that p-values are adjusted for."""
    runs = {run.id: run for cell in cells.values() for run in cell.runs}
    unfinished = {run.id: run for cell in cells.values() for run in cell.unfinished}
    used = [runs[run_id] for run_id in sorted(runs)]
    lines = ["Mean ± half-width of the 95 % t-interval over seeds (number of seeds).", _marks(cells, pairs)]
    if table.paper:
        lines.append(_paper(table))
    if any(cell.status == "counted" for cell in cells.values()):
        lines.append("† counted on the architecture, no run.")
    lines += [*_unlearned(table, cells), _floors(table, cells), *_unequal(cells)]
    lines.append(f"Runs: {len(runs)} finished, {len(unfinished)} not{_statuses(list(unfinished.values()))}.")
    if used:
        lines += [_commits(used), _devices(used), _costs(table, used), _data(used), _scorers(table, used)]
        lines += [_lengths(used), *_scores_to_read_with_care(table, used), *_tuning(table, cells, used)]
    lines += [_origins(used), *_copies(used), _excluded(excluded)]
    return [line for line in (*lines, table.note) if line]


def left_out(cells: Cells, excluded: Mapping[str, str]) -> list[str]:
    """The lines of a footer on what its table does not show as it was found; none if there is nothing of the kind."""
    used = list({run.id: run for cell in cells.values() for run in cell.runs}.values())
    return [*_unequal(cells), *_copies(used), *([_excluded(excluded)] if excluded else []), *unreadable(used)]


def unreadable(runs: Sequence[Run]) -> list[str]:
    """A line on the files of these runs that were found unreadable so far, if there are any."""
    found = sorted(set(problems_of(runs).values()))
    return [f"Files that cannot be read: {' '.join(found)}"] if found else []


def _marks(cells: Cells, pairs: int) -> str:
    tests = Counter(cell.test for cell in cells.values() if cell.p_value is not None)
    if not tests:
        return f"Nothing is tested: no column has two comparable methods with {contrast.MIN_SEEDS} seeds."
    kinds = ", ".join(f"{name} ({count})" for name, count in sorted(tests.items()))
    return (
        "Underlined: the methods of a column that cannot be told from its best one; bold: the best where that is one "
        f"method alone. One family over the whole table: the best against every other method of its column, p times "
        f"the {pairs} pair{'s' * (pairs != 1)} of methods in all columns, at 5 %; {contrast.PAIRED_RULE}: {kinds}. "
        f"A method with fewer than {contrast.MIN_SEEDS} seeds cannot be told from any."
    )


def _paper(table: Table) -> str:
    frame = values(table.paper)
    if frame.empty:
        return "Paper: no published value could be obtained; its cells are empty."
    sources = sorted(set(frame.loc[frame["table"] == table.number, "source"]))
    return f"Paper: {'; '.join(sources)}; second line of a cell: printed value and ours - paper."


def _unlearned(table: Table, cells: Cells) -> list[str]:
    titles = {row.name: row.title for row in table.rows} | {c.name: c.title for c in table.columns}
    found = []
    for cell in cells.values():
        if cell.unlearned:
            reasons = Counter(cell.unlearned.values())
            text = ", ".join(f"{count} of {len(cell.runs)} {reason}" for reason, count in sorted(reasons.items()))
            found.append(f"{titles[cell.row]} on {titles[cell.column]}: {text}")
    return [f"{SYMBOL} number of runs that did not learn. {'; '.join(found)}."] if found else []


def _floors(table: Table, cells: Cells) -> str:
    """The floor of each column: the score of a model that learned nothing."""
    found = []
    for column in table.columns:
        runs = [run for cell in cells.values() if cell.column == column.name for run in cell.runs]
        scored = ((run, score) for run in runs if (score := score_of(run, column)) and not column.parts)
        floors = sorted(
            {
                (floor[1], score.shown(floor[0]))
                for run, score in scored
                if not score.retention and (floor := floor_of(run, score))
            }
        )
        texts = ", ".join(f"{floor} ({name})" for name, floor in floors)
        found += [f"{column.title} {texts}"] if texts else []
    return f"Floors: {'; '.join(found)}." if found else ""


def _unequal(cells: Cells) -> list[str]:
    """One line a cell that must not be averaged, and one a cell that must not be compared."""
    lines = []
    for cell in cells.values():
        if cell.problems:
            lines.append(
                f"Row {cell.row}, column {cell.column}: not averaged, the runs differ in {'; '.join(cell.problems)}. "
                "Narrow them with --where KEY=VALUE or other --runs."
            )
        elif cell.apart:
            apart = "; ".join(f"{key} {value}" for key, value in cell.apart.items())
            lines.append(f"Row {cell.row}, column {cell.column}: not compared, another setting: {apart}.")
    return lines


def _statuses(runs: list[Run]) -> str:
    counts = Counter(sorted(run.record.status for run in runs))
    return f" ({counted(counts)})" if counts else ""


_CODE = ("core", "package")  # code hashes common to all runs; older records have one hash of the whole "package"


def _commits(runs: list[Run]) -> str:
    known = [run.record.provenance for run in runs if run.record.provenance]
    commits = Counter(p.git_commit or "unknown" for p in known)
    codes = sorted({f"{part} {digest[:12]}" for p in known for part, digest in p.code.items() if part in _CODE})
    dirty = sum(bool(p.uncommitted) for p in known)
    text = ", ".join(f"{commit[:12]} ({count})" for commit, count in sorted(commits.items()))
    return f"Commit (runs): {text}; runs of code that was not committed: {dirty}; code: {', '.join(codes)}."


def _devices(runs: list[Run]) -> str:
    devices = Counter(
        f"{p.device}, {p.dtype}, {p.threads} thread{'s' * (p.threads > 1)}, torch {p.packages.get('torch', 'unknown')}"
        for run in runs
        if (p := run.record.provenance)
    )
    return "Devices (runs): " + "; ".join(f"{name} ({count})" for name, count in sorted(devices.items())) + "."


def _costs(table: Table, runs: list[Run]) -> str:
    """Which costs are shown: only those measured for a run alone."""
    shown = [column.measure for column in table.columns if is_cost(column.measure)]
    empty = sum(any(not own_cost(run, measure) for measure in shown) for run in runs)
    held = [cores for run in runs if (cores := cores_of_others(run)) >= SHARED]
    texts = []
    if empty:
        texts.append(
            f"Costs are what a run costs alone: of {empty} runs one is left empty (trained beside others in one "
            "process, or the memory is that of the whole process)."
        )
    if held and any(not measure.startswith("memory.") for measure in shown):
        texts.append(
            f"Times of {len(held)} of {len(runs)} runs are those of a shared machine: other work held up to "
            f"{max(held):.1f} cores on average."
        )
    return " ".join(texts)


def _data(runs: list[Run]) -> str:
    used = {
        f"{catalogue.described(d.dataset)} {d.split}: {d.source}"
        + (f" at {d.revision[:12]}" if d.revision else "")
        + f", {d.rows} rows"
        for run in runs
        if run.record.provenance
        for d in run.record.provenance.data
    }
    return "Data: " + "; ".join(sorted(used)) + "."


def _lengths(runs: list[Run]) -> str:
    """Counts of training rows that were truncated or left out."""
    found = {
        f"{run.record.model} on {run.record.train_set}: {lengths.note}"
        for run in runs
        if (lengths := run.record.lengths) and lengths.note
    }
    return f"Lengths: {'; '.join(sorted(found))}." if found else ""


def _scorers(table: Table, runs: list[Run]) -> str:
    found = set()
    for column in table.columns:
        for run in runs:
            score = score_of(run, column) if not column.parts else None
            if score is not None:
                by = score.scorer + described(score.evaluation, score.scorer)
                found.add(f"{score.evaluation} v{score.version} by {by}, {score.n} questions, {score.stage}")
    return "Scores: " + "; ".join(sorted(found)) + "." if found else ""


def _scores_to_read_with_care(table: Table, runs: list[Run]) -> list[str]:
    """Answers graded wrong because the grader hit its time or size limit, and prompts that lost their beginning."""
    columns = [column for column in table.columns if column.measure == "score" and not column.parts]
    scores = [(run.id, score) for run in runs for column in columns if (score := score_of(run, column)) is not None]
    undecided = sorted(
        {f"{run_id} {s.evaluation} by {s.scorer}: {s.undecided} undecided" for run_id, s in scores if s.undecided}
    )
    cut = sorted({f"{run_id} {s.evaluation}: {s.prompts_cut} of {s.n}" for run_id, s in scores if s.prompts_cut})
    lines = []
    if undecided:
        lines.append(
            "Undecided answers, counted as not correct: " + "; ".join(undecided) + ". `--scorer EVALUATION=SCORER` "
            "grades them again with ten times the time."
        )
    if cut:
        lines.append(
            "Prompts that lost their beginning, since the model's context has no room for them and the longest answer: "
            + "; ".join(cut)
            + "."
        )
    return lines


def _tuning(table: Table, cells: Cells, runs: list[Run]) -> list[str]:
    """The tuning rule, once, and the chosen value of each method."""
    tuned = [run.record.tuning for run in runs if run.record.tuning]
    if not tuned:
        return ["Tuning: none; every rate is the protocol's or set by hand."]
    untuned = len(runs) - len(tuned)
    rules = rules_of(tuned)
    lines = [f"Tuning: {'; '.join(rules)}" + (f"; {untuned} runs without." if untuned else ".")]
    titles = {row.name: row.title for row in table.rows} | {c.name: c.title for c in table.columns}
    chosen: dict[str, list[str]] = {}
    scored = {column.name for column in table.columns if column.measure == "score"}
    for cell in (cell for cell in cells.values() if cell.column in scored):
        choices = {(t.key, t.chosen, t.interior): t for run in cell.runs if (t := run.record.tuning)}
        for tuning in choices.values():
            remarks = [] if tuning.interior else [f"at the end of {min(tuning.grid):g} to {max(tuning.grid):g}"]
            remarks += [TIES[tuning.tie_broken_by]] if tuning.tie_broken_by else []
            place = f" ({', '.join(remarks)})" if remarks else ""
            text = f"{titles[cell.row]}: {tuning.chosen:g}{place}"
            chosen.setdefault(titles[cell.column], []).append(text)
    for column, texts in chosen.items():
        lines.append(f"Chosen for {column}: {'; '.join(dict.fromkeys(texts))}.")
    return lines


TIES = {"loss": "of equal scores by the validation loss", "value": "of equal scores the smallest value"}


def rule_of(tuning: Tuning) -> str:
    """The tuning rule in words, without the chosen value."""
    declared = tuning.declared or tuning.grid
    extended = f", widened by up to {tuning.extend} at each end" if tuning.extend else ""
    return (
        f"{tuning.key} among {', '.join(f'{value:g}' for value in declared)}{extended}, {len(tuning.seeds)} seeds "
        f"({numbered(tuning.seeds)}) each, by {tuning.evaluation} ({tuning.scorer}) on rows held back from training"
    )


def rules_of(tuned: Sequence[Tuning], rule: Callable[[Tuning], str] = rule_of) -> list[str]:
    """Each distinct tuning rule, worded by `rule`, with its number of runs."""
    groups = sorted(grouped(tuned, rule).items())
    return [f"{words}: {span(tuning.budget for tuning in found)} runs a method" for words, found in groups]


def _origins(runs: list[Run]) -> str:
    """The folders and bundles of the runs, if there are several."""
    places = Counter(run.origin for run in runs)
    if len(places) < 2 and not any(run.copies for run in runs):
        return ""
    return "Origins: " + "; ".join(f"{place} ({count} runs)" for place, count in sorted(places.items())) + "."


def _copies(runs: list[Run]) -> list[str]:
    """Runs found in several places: the number of equal copies, and one line per copy that differs."""
    copies = [(run, copy) for run in runs for copy in run.copies]
    same = Counter(copy.origin for _, copy in copies if not copy.disagreement)
    lines = [f"Also in {place}: {count} of these runs, with the same numbers." for place, count in sorted(same.items())]
    lines += [
        f"Run {run.id} is also in {copy.origin} and disagrees: {copy.disagreement}. The first counts."
        for run, copy in copies
        if copy.disagreement
    ]
    return lines


def _excluded(excluded: Mapping[str, str]) -> str:
    if not excluded:
        return "Excluded runs: none."
    reasons = grouped(sorted(excluded), lambda run_id: excluded[run_id])
    parts = [f"{len(ids)} ({reason}): {some_of(ids, 5)}" for reason, ids in sorted(reasons.items())]
    return "Excluded runs: " + "; ".join(parts) + "."
