"""The contract of a task: the properties that its scores rely on.

| point | what is demanded |
|---|---|
| data | rows of every split that the task reads, with the columns that its data sets promise |
| training | a training example of every row; a finite loss and gradient on the model |
| graders | each scorer accepts the gold answer, refuses another row's, and raises on no text |
| stored answers | each scorer gives the same verdict from the gold answer alone, as answers of a bundle are graded |
| evaluation | two evaluations of one model give equal scores, one with half the batch size |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sdsbench.checks.finding import Finding, findings
from sdsbench.models.load import load as load_model
from sdsbench.results.grading import graders as graders_from_gold
from sdsbench.runs.configuration.identity import with_values
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.prepare import Loaded, load, ready_to_train
from sdsbench.runs.run_data import load_run
from sdsbench.tasks import base as tasks
from sdsbench.tasks.base import Generation, Row, Scorer, generation_of

SMALL = {"data.train_limit": 32, "eval.limit": 4, "eval.batch_size": 4, "device": "cpu", "dtype": "float32"}
SAME_SCORE = 1e-4  # correlations and likelihoods differ in their last digits when a pass sums in another order
HOSTILE = ("", " ", "\\boxed{", "#### ", "$" * 40, "1/0", "9" * 400, "The answer is: ", "\x00", "é" * 20)


def check_task(config: RunConfig) -> Iterator[Finding]:
    """Check every point of the contract for the configuration's task, with its model and method."""
    config, _ = resolve_source(with_values(config, SMALL))
    yield from findings(
        {
            "data": lambda: data(config),
            "training": lambda: training(config),
            "graders": lambda: graders(config),
            "stored answers": lambda: stored_answers(config),
            "evaluation": lambda: evaluation(config),
        }
    )


def data(config: RunConfig) -> Finding:
    """The rows of training and evaluation."""
    rows = load_run(config)
    sets = ", ".join(f"{used.dataset} {used.split}: {used.rows}" for used in rows.used())
    return Finding("data", True, sets)


def training(config: RunConfig) -> Finding:
    """One optimizer step."""
    loop, state = ready_to_train(config)
    report = loop.step(state)
    holds = math.isfinite(report.loss) and report.grad_norm > 0
    return Finding("training", holds, f"loss {report.loss:.4f}, gradient norm {report.grad_norm:.3g}")


def graders(config: RunConfig) -> Finding:
    """Run every scorer on the gold answer, on another row's different gold answer, and on malformed texts."""
    found = [
        f"{evaluation.name}/{name}: {problem}"
        for wanted, rows in load_run(config).evaluations
        if (evaluation := generation_of(wanted)) is not None
        for name, scorer in evaluation.scorers.items()
        for problem in _grader_problems(evaluation, scorer, [rows[i] for i in range(len(rows))])
    ]
    if found:
        return Finding("graders", False, "; ".join(found))
    generated = [e for e in tasks.build(config.task).evaluations() if generation_of(e)]
    return Finding("graders", True if generated else None, f"{len(generated)} generated evaluation(s)")


def stored_answers(config: RunConfig) -> Finding:
    """Run every scorer on rows and, as bundles are graded, on gold answers alone."""
    evaluations = [(generation_of(wanted), rows) for wanted, rows in load_run(config).evaluations]
    generated = [(evaluation, [rows[i] for i in range(len(rows))]) for evaluation, rows in evaluations if evaluation]
    problem = next((problem for evaluation, rows in generated for problem in _other_verdicts(evaluation, rows)), None)
    if problem is not None:
        advice = "a scorer that reads other columns than answer and solution needs Generation.row_of"
        return Finding("stored answers", False, f"{problem}; {advice}")
    return Finding("stored answers", True if generated else None, f"{len(generated)} generated evaluation(s)")


def _other_verdicts(evaluation: Generation, rows: Sequence[Row]) -> Iterator[str]:
    """Answers whose verdict from the gold answer alone differs from that of the row."""
    for name, from_gold in graders_from_gold(evaluation).items():
        for row in rows:
            gold = str(evaluation.target(row))
            for text in (*HOSTILE, *forms(gold)):
                expected, found = _verdict(evaluation.scorers[name], row, text), _verdict(from_gold, gold, text)
                if isinstance(found, Exception) or found != expected:
                    yield f"{evaluation.name}/{name}: {found!r} from the gold answer, {expected!r} from the row"


def _grader_problems(evaluation: Generation, score: Scorer, rows: Sequence[Row]) -> Iterator[str]:
    golds = [str(evaluation.target(row)) for row in rows]
    texts = [*HOSTILE, *golds]
    raised = [text for row in rows for text in texts if isinstance(_verdict(score, row, text), Exception)]
    if raised:
        yield f"raises on {raised[0][:20]!r}"
    pairs = list(zip(rows, golds, strict=True))
    if not any(_verdict(score, row, form) == 1 for row, gold in pairs for form in forms(gold)):
        yield "accepts no gold answer in any of the common forms"
    others = [(row, other) for row, gold in pairs for other in golds if other != gold]
    if others and all(_verdict(score, row, form) == 1 for row, other in others for form in forms(other)):
        yield "accepts every answer"


def forms(gold: str) -> tuple[str, ...]:
    """Common ways to write an answer."""
    return (
        gold,
        f"#### {gold}",
        f"The answer is: {gold}",
        f"\\boxed{{{gold}}}",
        f"the correct answer is {gold}",
        f"Final Answer: The final answer is ${gold}$. I hope it is correct.",
    )


def _verdict(score: Callable[[Any, str], Any], row_or_gold: Any, text: str) -> Any:
    try:
        return score(row_or_gold, text)
    except Exception as error:  # any exception is reported as the finding
        return error


def evaluation(config: RunConfig) -> Finding:
    """The scores of the untrained model, twice."""
    loaded = load(config, load_model)
    one, two = _scores(loaded, 4), _scores(loaded, 2)
    text = ", ".join(f"{name} {value:.3f}" for name, value in one.items())
    equal = one.keys() == two.keys() and all(
        math.isclose(value, two[name], rel_tol=SAME_SCORE, abs_tol=SAME_SCORE) for name, value in one.items()
    )
    return Finding("evaluation", equal, text if equal else f"{one}, with half the batch size {two}")


@torch.no_grad()
def _scores(loaded: Loaded, batch_size: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for wanted, rows in loaded.data.evaluations:
        result = loaded.family.evaluate(
            loaded.model.model.eval(), wanted, rows, "untrained", batch_size, lambda _: None
        )
        found |= {f"{score.evaluation}/{score.scorer}": score.value for score in result.scores}
    return found
