"""`sdsbench compare`: plan a tuned sweep within a time budget, run it, and recommend a method.

A comparison is an ordinary plan (see `sdsbench status NAME`). The same command resumes it: the plan's default name is a
hash of the question, and the runs that the budget allowed are frozen in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdsbench.core.allowed_names import name_problem
from sdsbench.core.clock import clock, two_digits
from sdsbench.core.console import print_wrapped
from sdsbench.core.errors import ConfigError, Problem, Refused, SdsbenchError, TrainingFailed
from sdsbench.core.hashing import sha256_of
from sdsbench.core.record import Record
from sdsbench.core.texts import number_of
from sdsbench.methods import base as methods
from sdsbench.results.report.report_folder import build as build_report
from sdsbench.results.tables.by_name import built
from sdsbench.results.tables.loaded_runs import load
from sdsbench.runs.configuration import choices
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.execute import execute
from sdsbench.runs.export import export
from sdsbench.runs.run_data import load_run
from sdsbench.runs.serving import lines
from sdsbench.studies.comparison import budget as budgets
from sdsbench.studies.comparison.budget import EXTEND, Effort
from sdsbench.studies.comparison.recommendation import Recommendation, recommend
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.blocks import TUNING_SEEDS, Tune, define
from sdsbench.sweeps.freeze import freeze
from sdsbench.sweeps.local_sweep import run_locally
from sdsbench.sweeps.states import root_of

RESULTS = Path("results/comparisons")
_CHOSEN = ("method", "seed", "train.lr", "eval.split")  # keys that a comparison sets itself


@dataclass(frozen=True)
class Question:
    """The question of a comparison: the methods to choose from, and the overrides that all runs share."""

    words: tuple[str, ...]
    methods: tuple[str, ...]
    reference: str
    config_dirs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = [
            Problem(key, word.partition("=")[2], "no value", "A comparison sets it: --methods names the methods.")
            for word in self.words
            if (key := word.partition("=")[0].lstrip("+")) in _CHOSEN
        ]
        problems += choices.unknown("--methods", self.methods, "method", self.config_dirs)
        if len(set(self.methods)) < 2:
            problems.append(Problem("--methods", ",".join(self.methods), "two different methods or more, by commas"))
        elif self.reference not in self.methods:
            problems.append(Problem("--reference", self.reference, f"one of --methods: {', '.join(self.methods)}"))
        if problems:
            raise ConfigError(problems)

    def config(self, method: str, *words: str) -> RunConfig:
        """The configuration of a method's run with further overrides `words`. Raises ConfigError."""
        return compose_run([*self.words, f"method={method}", *words], self.config_dirs)


@dataclass(frozen=True)
class Answer:
    """The result of a comparison. `adapter`: folder with the exported best run of the chosen method (a whole model for
    full fine-tuning); None if no method was chosen or its runs saved no weights."""

    recommendations: tuple[Recommendation, ...]
    report: Path
    adapter: Path | None

    @property
    def text(self) -> str:
        return "\n".join(found.sentence for found in self.recommendations)

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        from html import escape

        sentences = "".join(f"<p>{escape(found.sentence)}</p>" for found in self.recommendations)
        return f'{sentences}<p><a href="{escape(str(self.report))}">report</a></p>'


def compare(
    words: Sequence[str],
    methods: Sequence[str],
    budget: str,
    reference: str = "",
    *,
    workers: int = 1,
    name: str = "",
    config_dirs: Sequence[str] = (),
    only_plan: bool = False,
) -> Answer | None:
    """Plan the runs that `budget` allows, run or resume them, and return the answer; None with `only_plan`.

    `words` are overrides of a run (task, model, data ...); `reference` is the method that others are compared with
    (default: the first); `budget` is a time such as 4h. Raises ConfigError, Refused (budget too small), and the errors
    of a sweep.
    """
    question = Question(tuple(words), tuple(methods), reference or next(iter(methods), ""), tuple(config_dirs))
    seconds = budgets.budget_seconds(budget)
    if name and (problem := name_problem("--name", name)):
        raise ConfigError([problem])
    called = name or f"compare_{sha256_of([question.words, question.methods, budget, question.reference])[:8]}"
    folder = plans.PLANS / called
    if (folder / "manifest.json").is_file():
        plan = plans.read(folder)
        _check_same(question, plan, name)
        print_wrapped(f"goes on with plan {folder}, as it was planned: {plan.manifest.description}")
    else:
        plan = _write_plan(question, seconds, workers, called)
    if only_plan:
        print_wrapped(
            f"`sdsbench sweep {plan.folder}` runs it; the same command without --plan-only does, and answers."
        )
        return None
    try:
        run_locally(plan, {}, workers, None, deaths=5)
    except TrainingFailed as error:  # diverged runs do not prevent an answer
        print_wrapped(f"note: {error}")
    return _answer(plan, question, RESULTS / called)


def _write_plan(question: Question, seconds: float, workers: int, name: str) -> plans.Plan:
    """Write the plan that fits into the budget of `seconds`, estimated from the time of a first run."""
    configs = {method: question.config(method) for method in question.methods}
    rates = {method: config.train.lr for method, config in configs.items()}
    questions = _test_rows(question.config(question.reference))
    first = _first_run(question, rates)
    run_seconds = _run_seconds(configs, question.reference, first)
    effort = budgets.afford(seconds, run_seconds, workers)
    grid = budgets.learning_rates(rates, effort.rates)
    seeds = ",".join(map(str, range(effort.seeds)))
    sweep = define([*question.words, f"method={','.join(question.methods)}", f"seed={seeds}"], question.config_dirs)
    sweep.name, sweep.description = name, f"{', '.join(question.methods)}: {effort}"
    sweep.tune = Tune(key="train.lr", grid=grid, seeds=_tuning_seeds(effort), extend=EXTEND)
    sweep.placing.setdefault("train.save", "all")  # any method can be chosen, and its best run is exported
    plan, _ = plans.write(plans.PLANS / name, *freeze(sweep, question.config_dirs))
    kept = _disk_lines(configs, effort, first) if sweep.placing["train.save"] == "all" else ()
    power = f"  {_power_sentence(effort, first, questions)}"
    for line in (*_plan_summary(effort, grid, run_seconds, seconds, workers), power, *kept):
        print_wrapped(line)
    return plan


def _tuning_seeds(effort: Effort) -> list[int]:
    return [TUNING_SEEDS[0] + place for place in range(effort.tuning_seeds)]


def _check_same(question: Question, plan: plans.Plan, name: str) -> None:
    """Raises Refused where the plan that is there was made for another question; `name`: what the user called it."""
    rates = {method: question.config(method).train.lr for method in question.methods}
    middle = {run_id(resolve_source(_middle_run(question, method, rates))[0]) for method in question.methods}
    planned = {run.point.get("method") for run in plan.manifest.runs.values()}
    if planned == set(question.methods) and middle <= plan.manifest.runs.keys():
        return
    if not name:
        raise Refused(
            f"plan {plan.folder} was made by this command, which now means other runs: a file of yours, where the data "
            "comes from, or this code has changed since. Give a --name: a new plan is made under it."
        )
    described = f" ({plan.manifest.description})" if plan.manifest.description else ""
    raise Refused(
        f"--name {name}: plan {plan.folder} is there and answers another question{described}. Give another --name, or "
        "none; or the methods and overrides that it was made with."
    )


def _middle_run(question: Question, method: str, rates: Mapping[str, float]) -> RunConfig:
    """A method's tuning run with the first tuning seed at the middle rate, which every grid contains."""
    rate = budgets.learning_rates(rates, 1)[0]
    return question.config(method, f"seed={TUNING_SEEDS[0]}", f"train.lr={rate!r}", "eval.split=validation")


def _first_run(question: Question, rates: Mapping[str, float]) -> Record:
    """Train one run of the future plan to measure its time."""
    config = _middle_run(question, question.reference, rates)
    print_wrapped(f"the first run, {question.reference} at train.lr={config.train.lr:g}, shows what a run takes")
    record = execute(config)
    if record.status != "done":
        raise TrainingFailed(f"the first run ended as {record.status}: nothing can be planned from it")
    return record


def _run_seconds(configs: Mapping[str, RunConfig], reference: str, first: Record) -> dict[str, float]:
    """Method -> estimated seconds of one run: those of the first run, training scaled by `relative_time`."""
    relative = {name: methods.lookup(config.method.name)[0].relative_time for name, config in configs.items()}
    rest = first.seconds.load + first.seconds.init + first.seconds.eval
    return {name: rest + first.seconds.train * time / relative[reference] for name, time in relative.items()}


def _test_rows(config: RunConfig) -> int:
    """The number of test rows. Raises Unavailable if data is missing, before any training starts."""
    data = load_run(resolve_source(config)[0])
    return sum(len(rows) for _, rows in data.evaluations)


def _disk_lines(configs: Mapping[str, RunConfig], effort: Effort, first: Record) -> Iterator[str]:
    """One line per method that trains the base weights: the disk space that its saved runs will take."""
    assert first.parameters is not None
    size = two_digits(effort.seeds * 4 * first.parameters.total / 1e9)  # in fp32
    for name, config in configs.items():
        if methods.lookup(config.method.name)[0].trains_base:
            yield f"  keeps the weights of {name}'s {effort.seeds} fresh runs, {size} GB in {config.output_root}"


def _plan_summary(
    effort: Effort, grid: Sequence[float], run_seconds: Mapping[str, float], budget: float, workers: int
) -> list[str]:
    total = budgets.total_seconds(effort, run_seconds, workers)
    rates = ", ".join(f"{rate:g}" for rate in grid)
    return [
        f"the budget of {clock(budget)} buys, for each of {len(run_seconds)} methods: {effort}",
        f"  rates {rates}, the same for all; up to {EXTEND} more at an end while the best is the last one there",
        f"  at most {effort.runs * len(run_seconds)} runs, about {clock(total)} with {number_of(workers, 'worker')}",
    ]


def _power_sentence(effort: Effort, first: Record, questions: int) -> str:
    """A sentence on the detectable differences with this many test questions. For a loss they are unknown until runs
    have shown its spread over seeds."""
    scores = [score for score in first.scores if score.headline and score.stage == "validation"]
    if any(score.unit != "share" for score in scores):
        return (
            f"which differences of {', '.join(score.scorer for score in scores)} it finds is known once seeds have run"
        )
    found = [budgets.detectable(effort, questions, spread) for spread in (1.0, 3.0)]
    return (
        f"with {questions:,} test questions it finds (80 % power) differences of {found[0]:.1f} points if seeds spread "
        f"by 1 point, of {found[1]:.1f} if by 3"
    )


def _answer(plan: plans.Plan, question: Question, folder: Path) -> Answer:
    """Make the recommendation, the report and the exported adapter from the records of a plan."""
    root = root_of(plan, {})
    runs, damaged = load(root, plan=str(plan.folder))
    found = tuple(recommend(built("grid", runs, damaged), question.reference))
    adapter = _export_best(found, folder / "adapter")
    lead = [one.sentence for one in found]
    lead += [f"The best run of the method to take is exported: {adapter}."] if adapter else []
    report = build_report(
        folder / "report", runs, damaged, title=f"Which method? {plan.manifest.name}", reference=question.reference,
        lead=lead,
    )  # fmt: skip
    answer = Answer(found, report, adapter)
    print_wrapped(f"\n{answer.text}\n\nreport: {report}")
    return answer


def _export_best(found: Sequence[Recommendation], folder: Path) -> Path | None:
    """Export the chosen method's best run and return its folder; an earlier export of the same run is kept.

    The folder gets its name when it is whole: an export that was interrupted is made again.
    """
    chosen = [one.chosen for one in found if one.chosen is not None]
    if not chosen:
        return None
    run = chosen[0].best_run
    target = folder / run.id
    if not target.exists():
        unfinished = folder / f"{run.id}.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            exported = export(run.folder, unfinished)
        except SdsbenchError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            why = error.problems[0].advice if isinstance(error, ConfigError) else str(error)
            print_wrapped(f"note: run {run.id}, the best of {chosen[0].row.title}, was not exported: {why}")
            return None
        os.replace(unfinished, target)
        print_wrapped(f"exported: run {run.id}, the best of {chosen[0].row.title} on its test questions")
        for line in lines(replace(exported, folder=target)):
            print(line)  # not wrapped: a command that users copy
    return target
