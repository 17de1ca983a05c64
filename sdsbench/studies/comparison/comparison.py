"""Which method should I use? A budget becomes a tuned sweep, the sweep a report, and the report one sentence.

A comparison is a plan like any other (`sdsbench status NAME` shows it) and is resumed by the same command: the plan is
named by the question, and what the budget bought was frozen in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdsbench.core.allowed_names import name_problem
from sdsbench.core.clock import clock, two_digits
from sdsbench.core.console import print_wrapped
from sdsbench.core.errors import ConfigError, Problem, Refused, SdsbenchError, TrainingFailed
from sdsbench.core.hashing import sha256_of
from sdsbench.core.record import Record
from sdsbench.core.spelling import nearest
from sdsbench.methods import base as methods
from sdsbench.results.report.build import build as build_report
from sdsbench.results.tables.by_name import built
from sdsbench.results.tables.runs import load
from sdsbench.runs.configuration.choices import options
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
from sdsbench.sweeps.here import run_here
from sdsbench.sweeps.states import root_of

RESULTS = Path("results/comparisons")
_CHOSEN = ("method", "seed", "train.lr", "eval.split")  # keys that a comparison sets itself


@dataclass(frozen=True)
class Question:
    """Which of these methods, for runs with these overrides?"""

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
        known = options("method", self.config_dirs)
        problems += [
            Problem("--methods", name, ", ".join(known), nearest(name, known))
            for name in self.methods
            if name not in known
        ]
        if len(set(self.methods)) < 2:
            problems.append(Problem("--methods", ",".join(self.methods), "two different methods or more, by commas"))
        elif self.reference not in self.methods:
            problems.append(Problem("--reference", self.reference, f"one of --methods: {', '.join(self.methods)}"))
        if problems:
            raise ConfigError(problems)

    def config(self, method: str, *words: str) -> RunConfig:
        """A run of a method. Raises ConfigError."""
        return compose_run([*self.words, f"method={method}", *words], self.config_dirs)


@dataclass(frozen=True)
class Answer:
    """What a comparison ends with; `adapter` holds the chosen method's best run, exported (full fine-tuning's as a
    plain model); None where no method was chosen or nothing of it was saved."""

    recommendations: tuple[Recommendation, ...]
    report: Path
    adapter: Path | None

    @property
    def text(self) -> str:
        return "\n".join(found.sentence for found in self.recommendations)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
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
    """Plan what `budget` buys, run it or go on with it, and answer; None with `only_plan`.

    `words` are overrides of a run (task, model, data ...), `reference` the method that the others are held against
    (the first one if none is named). Raises ConfigError, Refused (the budget is too small), and what a sweep raises.
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
        plan = _planned(question, seconds, workers, called)
    if only_plan:
        print_wrapped(
            f"`sdsbench sweep {plan.folder}` runs it; the same command without --plan-only does, and answers."
        )
        return None
    try:
        run_here(plan, {}, workers, None, deaths=5)
    except TrainingFailed as error:  # a diverged rate is no reason to have no answer
        print_wrapped(f"note: {error}")
    return _answered(plan, question, RESULTS / called)


def _planned(question: Question, seconds: float, workers: int, name: str) -> plans.Plan:
    """The plan that fits into the budget, by what its first run took."""
    configs = {method: question.config(method) for method in question.methods}
    rates = {method: config.train.lr for method, config in configs.items()}
    questions = _questions(question.config(question.reference))
    first = _first_run(question, rates)
    run_seconds = _run_seconds(configs, question.reference, first)
    effort = budgets.afford(seconds, run_seconds, workers)
    grid = budgets.learning_rates(rates, effort.rates)
    seeds = ",".join(map(str, range(effort.seeds)))
    sweep = define([*question.words, f"method={','.join(question.methods)}", f"seed={seeds}"], question.config_dirs)
    sweep.name, sweep.description = name, f"{', '.join(question.methods)}: {effort}"
    sweep.tune = Tune(key="train.lr", grid=grid, seeds=_tuning_seeds(effort), extend=EXTEND)
    sweep.placing.setdefault("train.save", "all")  # whichever method is chosen, its best run is there to be exported
    plan, _ = plans.write(plans.PLANS / name, *freeze(sweep, question.config_dirs))
    kept = _kept(configs, effort, first) if sweep.placing["train.save"] == "all" else ()
    power = f"  {_power(effort, first, questions)}"
    for line in (*_bought(effort, grid, run_seconds, seconds, workers), power, *kept):
        print_wrapped(line)
    return plan


def _tuning_seeds(effort: Effort) -> list[int]:
    return [TUNING_SEEDS[0] + place for place in range(effort.tuning_seeds)]


def _check_same(question: Question, plan: plans.Plan, name: str) -> None:
    """Raises Refused where the plan that is there was made for another question; `name`: what the user called it."""
    rates = {method: question.config(method).train.lr for method in question.methods}
    middle = {run_id(resolve_source(_middle(question, method, rates))[0]) for method in question.methods}
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


def _middle(question: Question, method: str, rates: Mapping[str, float]) -> RunConfig:
    """A method's run at the middle rate, which is in every grid, with the first tuning seed."""
    rate = budgets.learning_rates(rates, 1)[0]
    return question.config(method, f"seed={TUNING_SEEDS[0]}", f"train.lr={rate!r}", "eval.split=validation")


def _first_run(question: Question, rates: Mapping[str, float]) -> Record:
    """A run of the plan, trained before the rest."""
    config = _middle(question, question.reference, rates)
    print_wrapped(f"the first run, {question.reference} at train.lr={config.train.lr:g}, shows what a run takes")
    record = execute(config)
    if record.status != "done":
        raise TrainingFailed(f"the first run ended as {record.status}: nothing can be planned from it")
    return record


def _run_seconds(configs: Mapping[str, RunConfig], reference: str, first: Record) -> dict[str, float]:
    """What a run of each method takes: the first run's time, its training in the proportion of the methods' times."""
    relative = {name: methods.lookup(config.method.name)[0].relative_time for name, config in configs.items()}
    rest = first.seconds.load + first.seconds.init + first.seconds.eval
    return {name: rest + first.seconds.train * time / relative[reference] for name, time in relative.items()}


def _questions(config: RunConfig) -> int:
    """Rows that every fresh run is tested on; raises Unavailable where they cannot be had, before anything trains."""
    data = load_run(resolve_source(config)[0])
    return sum(len(rows) for _, rows in data.evaluations)


def _kept(configs: Mapping[str, RunConfig], effort: Effort, first: Record) -> Iterator[str]:
    """How much disk the fresh runs of each method take that trains the base's own weights."""
    assert first.parameters is not None
    size = two_digits(effort.seeds * 4 * first.parameters.total / 1e9)  # in fp32
    for name, config in configs.items():
        if methods.lookup(config.method.name)[0].trains_base:
            yield f"  keeps the weights of {name}'s {effort.seeds} fresh runs, {size} GB in {config.output_root}"


def _bought(
    effort: Effort, grid: Sequence[float], run_seconds: Mapping[str, float], budget: float, workers: int
) -> list[str]:
    total = budgets.total_seconds(effort, run_seconds, workers)
    rates = ", ".join(f"{rate:g}" for rate in grid)
    return [
        f"the budget of {clock(budget)} buys, for each of {len(run_seconds)} methods: {effort}",
        f"  rates {rates}, the same for all; up to {EXTEND} more at an end while the best is the last one there",
        f"  at most {effort.runs * len(run_seconds)} runs, about {clock(total)} with {workers} worker(s)",
    ]


def _power(effort: Effort, first: Record, questions: int) -> str:
    """Which differences the planned test finds on so many test questions; of a loss nobody knows before seeds have
    shown how it spreads."""
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


def _answered(plan: plans.Plan, question: Question, folder: Path) -> Answer:
    """The page, the sentence and the best adapter, from the records of a plan."""
    root = root_of(plan, {})
    runs, damaged = load(root, plan=str(plan.folder))
    found = tuple(recommend(built("grid", runs, damaged), question.reference))
    adapter = _exported(found, folder / "adapter")
    lead = [one.sentence for one in found]
    lead += [f"The best run of the method to take is exported: {adapter}."] if adapter else []
    report = build_report(
        folder / "report", runs, damaged, title=f"Which method? {plan.manifest.name}", reference=question.reference,
        lead=lead,
    )  # fmt: skip
    answer = Answer(found, report, adapter)
    print_wrapped(f"\n{answer.text}\n\nreport: {report}")
    return answer


def _exported(found: Sequence[Recommendation], folder: Path) -> Path | None:
    """The chosen method's best run, exported; what was exported before is kept where it is of the same run."""
    chosen = [one.chosen for one in found if one.chosen is not None]
    if not chosen:
        return None
    run = chosen[0].best_run
    target = folder / run.id
    if not target.exists():
        try:
            said = lines(export(run.folder, target))
        except SdsbenchError as error:
            why = error.problems[0].advice if isinstance(error, ConfigError) else str(error)
            print_wrapped(f"note: run {run.id}, the best of {chosen[0].row.title}, was not exported: {why}")
            return None
        print_wrapped(f"exported: run {run.id}, the best of {chosen[0].row.title} on its test questions")
        for line in said:
            print(line)  # a command to be copied
    return target
