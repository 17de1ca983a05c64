"""The setup paragraph of a paper's experiments section, from records alone: one per model, task and protocol.

Values that differ between the runs of one paragraph are listed; values missing in a record are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from sdsbench.core.errors import Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.core.record import DataUsed, Tuning
from sdsbench.core.texts import listed, numbered, span
from sdsbench.data import catalogue
from sdsbench.results import setting
from sdsbench.results.tables.contrast import MIN_SEEDS, PAIRED_RULE, paired_over_seeds
from sdsbench.results.tables.footer import rules_of
from sdsbench.results.tables.grid import titles_of
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.titles import method_order, model_title, task_title
from sdsbench.tasks.graders.grader_titles import described

PACKAGES = ("torch", "transformers", "peft", "lm_eval")
"""Packages whose versions the paragraph states; the records hold those of all packages."""


def paragraphs(runs: Sequence[Run]) -> list[str]:
    """One paragraph per model, task and protocol of the finished runs, ordered by name.

    Raises Unavailable if no run is finished.
    """
    done = [run for run in runs if run.record.status == "done" and not setting.tuning_run(run.record)]
    groups = grouped(done, lambda run: (run.record.model, run.record.task, run.record.protocol))
    if not groups:
        raise Unavailable("no run is finished; a paragraph on the setup is written from finished runs.")
    return [_paragraph(groups[key]) for key in sorted(groups)]


def _paragraph(runs: Sequence[Run]) -> str:
    titles = titles_of(runs)
    sentences = (
        _what(runs), _methods(runs, titles), _training(runs), _rates(runs, titles), _scores(runs, titles),
        _tests(runs, titles), _machine(runs),
    )  # fmt: skip
    return " ".join(filter(None, sentences))


def _what(runs: Sequence[Run]) -> str:
    record = runs[0].record
    data = {
        f"{used.dataset} ({_source(used)}{f', revision {used.revision[:12]}' if used.revision else ''}"
        f", {used.rows:,} training rows)"
        for run in runs
        if run.record.provenance
        for used in run.record.provenance.data
        if used.split == "train"
    }
    weights = {
        f"{p.weights.source}{f' at {p.weights.revision[:12]}' if p.weights.revision else ''} in {p.dtype}"
        for run in runs
        if (p := run.record.provenance)
    }
    made = f" (weights: {listed(sorted(weights))})" if weights else ""
    on = listed(sorted(data)) if data else task_title(record.train_set)
    return f"We fine-tune {model_title(record.model)}{made} on {on}."


def _source(used: DataUsed) -> str:
    """Where rows came from; a set that is a user's own files, or that is always generated, has no real rows beside."""
    data_set = catalogue.get(used.dataset) if catalogue.known(used.dataset) else None
    if used.source == "embedded":
        only = data_set is not None and data_set.only_generated
        return "generated" if only else "generated stand-ins for the real rows"
    if used.source == "local":
        return "own files" if data_set is not None and data_set.own else "local copy"
    return used.source


def _methods(runs: Sequence[Run], titles: Mapping[str, str]) -> str:
    ordered = sorted(runs, key=lambda run: (method_order(run.record.method), run.record.rank or 0, titles[run.id]))
    alphas = grouped(ordered, lambda run: (titles[run.id], run.record.alpha))
    texts = [title + (f" (alpha {alpha:g})" if alpha is not None else "") for title, alpha in alphas]
    return f"Methods: {'; '.join(texts)}."


def _training(runs: Sequence[Run]) -> str:
    sizes = {run.flat["config.train.batch_size"] for run in runs if "config.train.batch_size" in run.flat}
    steps = {run.record.losses.steps for run in runs if run.record.losses}
    parts = [f"{listed(sorted(steps), 'or')} optimizer steps" if steps else ""]
    parts += [f"an effective batch of {listed(sorted(sizes), 'or')}" if sizes else ""]
    words = {
        "optimizer": "{}", "schedule": "{} schedule", "warmup_ratio": "warm-up of {} of the steps",
        "weight_decay": "weight decay {}", "clip_norm": "gradients clipped at norm {}",
        "max_length": "at most {} tokens a row",
    }  # fmt: skip
    for key, form in words.items():
        values = _values(runs, f"config.train.{key}")
        parts += [form.format(listed(values, "or"))] if values else []
    return f"Each run takes {', '.join(filter(None, parts))}."


def _rates(runs: Sequence[Run], titles: Mapping[str, str]) -> str:
    tuned = [run for run in runs if run.record.tuning]
    texts = rules_of([t for run in tuned if (t := run.record.tuning)], _rule)
    if tuned:
        chosen = {
            (method_order(run.record.method), titles[run.id], t.chosen, t.interior)
            for run in tuned
            if (t := run.record.tuning)
        }
        rates = (
            f"{value:g} for {title}{'' if inside else ' (the end of its grid)'}"
            for _, title, value, inside in sorted(chosen)
        )
        texts.append(f"chosen: {'; '.join(rates)}")
    fixed = sorted({run.record.lr for run in runs if not run.record.tuning})
    if fixed:
        values = listed((f"{rate:g}" for rate in fixed), "or")
        texts.append(f"learning rate {values}, not tuned" + (" elsewhere" if tuned else ""))
    text = "; ".join(texts)
    return f"{text[0].upper()}{text[1:]}."


def _rule(tuning: Tuning) -> str:
    declared = ", ".join(f"{value:g}" for value in tuning.declared or tuning.grid)
    extended = f", and of up to {tuning.extend} more beyond an end that is best," if tuning.extend else ""
    key = "the learning rate" if tuning.key == "train.lr" else tuning.key
    return (
        f"{key} of each method is the best of {declared}{extended} by {task_title(tuning.evaluation)} "
        f"({tuning.scorer}) on rows held back from training, over {_seeds(tuning.seeds)} ({numbered(tuning.seeds)})"
    )


_AFTER = {"trained": "after training", "best_epoch": "after the best epoch"}


def _scores(runs: Sequence[Run], titles: Mapping[str, str]) -> str:
    found = {
        f"{task_title(s.evaluation)} by {s.scorer}{described(s.evaluation, s.scorer)} on {s.n:,} questions"
        for run in runs
        for s in run.record.scores
        if s.headline and s.stage in _AFTER
    }
    stages = {s.stage for run in runs for s in run.record.scores if s.headline}
    after = listed(words for stage, words in _AFTER.items() if stage in stages)
    seeds = sorted({run.record.seed for run in runs})
    each = span(map(len, _seeds_of(runs, titles)))
    counted = f"{_seeds(seeds)} ({numbered(seeds)})" if each == str(len(seeds)) else f"{each} seeds a method"
    return f"We report {listed(sorted(found))} {after}, with {counted}." if found else f"There are {counted}."


def _seeds_of(runs: Sequence[Run], titles: Mapping[str, str]) -> list[set[int]]:
    """The seeds of each method (with its rank and variant)."""
    return [{run.record.seed for run in found} for found in grouped(runs, lambda run: titles[run.id]).values()]


def _tests(runs: Sequence[Run], titles: Mapping[str, str]) -> str:
    """Whether and how methods are tested: two of them need enough seeds, common ones where seeds are paired."""
    seeds, paired = _seeds_of(runs, titles), paired_over_seeds(runs)
    shared = [len(a & b) if paired else min(len(a), len(b)) for a, b in combinations(seeds, 2)]
    if max(shared, default=0) < MIN_SEEDS:
        common = "common " if paired else ""
        intervals = "Intervals are 95 % t-intervals over seeds. " if max(map(len, seeds)) > 1 else ""
        return f"{intervals}Nothing is tested: no two methods have {MIN_SEEDS} {common}seeds."
    how = "paired over seeds" if paired else "not paired over seeds"
    return (
        f"Intervals are 95 % t-intervals over seeds; differences between methods are tested {how} ({PAIRED_RULE}), "
        "with questions as a second, crossed source of variance where answers are stored; p is adjusted for all tests "
        "of a table (by Holm against a reference method, by Bonferroni against the best one)."
    )


def _machine(runs: Sequence[Run]) -> str:
    known = [run.record.provenance for run in runs if run.record.provenance]
    if not known:
        return ""
    devices = sorted({f"{p.device} ({p.threads} thread{'s' * (p.threads != 1)})" for p in known})
    versions = []
    for name in PACKAGES:
        found = sorted({p.packages[name] for p in known if name in p.packages})
        versions += [f"{name} {listed(found)}"] if found else []
    commits = sorted({p.git_commit[:12] for p in known if p.git_commit})
    changed = " with changes that were not committed" if any(p.uncommitted for p in known) else ""
    made = f"; sdsbench at commit {listed(commits)}{changed}" if commits else ""
    software = ", ".join([f"Python {listed(sorted({p.python for p in known}))}", *versions])
    return f"Hardware: {listed(devices)}. Software: {software}{made}."


def _seeds(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"


def _values(runs: Sequence[Run], key: str) -> list[str]:
    """The distinct values of a key in these runs, as texts; empty if no run has one."""
    values = {
        run.naming[key] for run in runs if run.naming.get(key) is not None and not isinstance(run.naming[key], list)
    }
    return [f"{value:g}" if isinstance(value, float) else str(value) for value in sorted(values, key=str)]
