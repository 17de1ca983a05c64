"""The setup paragraph of a paper's experiments section, from records alone: one per model and training setting.

Values that differ between the runs of one paragraph are listed; values missing in a record are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdsbench.core.errors import Unavailable
from sdsbench.core.grouped import grouped
from sdsbench.core.record import Tuning
from sdsbench.core.texts import listed, numbered
from sdsbench.results import setting
from sdsbench.results.tables.contrast import MIN_SEEDS, PAIRED_RULE, paired_over_seeds
from sdsbench.results.tables.footer import rules_of
from sdsbench.results.tables.grid import titles_of
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.titles import method_order, model_title, task_title
from sdsbench.tasks.graders.grader_titles import described

PACKAGES = ("torch", "transformers", "peft", "lm_eval")
"""Packages whose versions the paragraph states; the records hold those of all packages."""


_SOURCES = {"embedded": "generated stand-ins for the real rows", "local": "local copy", "hub": "hub"}


def paragraphs(runs: Sequence[Run]) -> list[str]:
    """One paragraph per model and task of the finished runs, ordered by name.

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
        _what(runs), _methods(runs, titles), _training(runs), _rates(runs, titles), _scores(runs), _tests(runs),
        _machine(runs),
    )  # fmt: skip
    return " ".join(filter(None, sentences))


def _what(runs: Sequence[Run]) -> str:
    record = runs[0].record
    data = {
        f"{used.dataset} ({_SOURCES[used.source]}{f', revision {used.revision[:12]}' if used.revision else ''}"
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


def _methods(runs: Sequence[Run], titles: Mapping[str, str]) -> str:
    ordered = sorted(runs, key=lambda run: (method_order(run.record.method), run.record.rank or 0, titles[run.id]))
    alphas = grouped(ordered, lambda run: (titles[run.id], run.record.alpha))
    texts = [title + (f" (alpha {alpha:g})" if alpha is not None else "") for title, alpha in alphas]
    return f"Methods: {'; '.join(texts)}."


def _training(runs: Sequence[Run]) -> str:
    sizes = {run.flat["config.train.batch_size"] for run in runs if "config.train.batch_size" in run.flat}
    steps = {run.record.losses.steps for run in runs if run.record.losses}
    parts = [f"{listed(sorted(steps))} optimizer steps" if steps else ""]
    parts += [f"an effective batch of {listed(sorted(sizes))}" if sizes else ""]
    words = {
        "optimizer": "{}", "schedule": "{} schedule", "warmup_ratio": "warm-up of {} of the steps",
        "weight_decay": "weight decay {}", "clip_norm": "gradients clipped at norm {}",
        "max_length": "at most {} tokens a row",
    }  # fmt: skip
    for key, form in words.items():
        values = _values(runs, f"config.train.{key}")
        parts += [form.format(listed(values))] if values else []
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
        texts.append(
            f"learning rate {listed(f'{rate:g}' for rate in fixed)}, not tuned" + (" elsewhere" if tuned else "")
        )
    text = "; ".join(texts)
    return f"{text[0].upper()}{text[1:]}."


def _rule(tuning: Tuning) -> str:
    declared = ", ".join(f"{value:g}" for value in tuning.declared or tuning.grid)
    extended = f", and of up to {tuning.extend} more beyond an end that is best," if tuning.extend else ""
    key = "the learning rate" if tuning.key == "train.lr" else tuning.key
    return (
        f"{key} of each method is the best of {declared}{extended} by {task_title(tuning.evaluation)} "
        f"({tuning.scorer}) on rows held back from training, over {_seeds(tuning.seeds)} of their own"
    )


def _scores(runs: Sequence[Run]) -> str:
    found = {
        f"{task_title(s.evaluation)} by {s.scorer}{described(s.evaluation, s.scorer)} on {s.n:,} questions"
        for run in runs
        for s in run.record.scores
        if s.headline and s.stage in ("trained", "best_epoch")
    }
    seeds = sorted({run.record.seed for run in runs})
    after = "the best epoch" if any(s.stage == "best_epoch" for run in runs for s in run.record.scores) else "training"
    counted = f"{_seeds(seeds)} ({numbered(seeds)})"
    return f"We report {listed(sorted(found))} after {after}, with {counted}." if found else f"There are {counted}."


def _tests(runs: Sequence[Run]) -> str:
    if len({run.record.seed for run in runs}) < MIN_SEEDS:
        return f"With fewer than {MIN_SEEDS} seeds nothing is tested."
    how = "paired over seeds" if paired_over_seeds(runs) else "not paired over seeds"
    return (
        f"Intervals are 95 % t-intervals over seeds; differences between methods are tested {how} ({PAIRED_RULE}), "
        "with questions as a second, crossed source of variance where answers are stored; p is adjusted by Holm."
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
    made = f"; sdsbench at commit {listed(commits)}" if commits else ""
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
