"""Recomputing scores from stored answers with another scorer, without a model.

`gsm8k=strict` selects a scorer of the task's definition; `gsm8k=my_module:my_scorer` an importable Python function
(target, response) -> bool, number or None (undecided). Answers that the grader left undecided are graded again with
larger limits.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdsbench.core.errors import ConfigError, Problem, Unavailable
from sdsbench.core.record import Score
from sdsbench.core.samples import holds_answer
from sdsbench.evaluation.metrics import mean_and_error
from sdsbench.results.frames import samples_of
from sdsbench.results.grading import Grader, evaluation_of, graders
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.tasks.base import generation_of
from sdsbench.tasks.symbolic import patience

PATIENCE = 10.0  # factor on the grader's limits for answers that were left undecided


def rescored(runs: Sequence[Run], choice: str) -> list[Run]:
    """The runs with the chosen scorer as headline of its evaluation after training; other runs are unchanged.

    If the record has a score by that scorer, it is used, with undecided answers graded again; else the score is
    computed from the stored answers. Raises ConfigError if `choice` names no scorer, Unavailable for a run without
    stored answers.
    """
    evaluation, _, name = choice.partition("=")
    if not (evaluation and name):
        raise ConfigError([Problem("--scorer", choice, "EVALUATION=SCORER, such as gsm8k=strict")])
    return [_one(run, evaluation, name) for run in runs]


def _one(run: Run, evaluation: str, name: str) -> Run:
    here = [score for score in run.record.scores if (score.evaluation, score.stage) == (evaluation, "trained")]
    if not here:
        return run
    known = next((score for score in here if score.scorer == name), None)
    chosen = known if known and not known.undecided else _computed(run, here[0], name)
    others = [score.model_copy(update={"headline": False}) if score in here else score for score in run.record.scores]
    scores = [
        score for score in others if (score.evaluation, score.stage, score.scorer) != (evaluation, "trained", name)
    ]
    scores.append(chosen.model_copy(update={"headline": True}))
    return dataclasses.replace(run, record=run.record.model_copy(update={"scores": scores}))


def _computed(run: Run, like: Score, name: str) -> Score:
    """The score by scorer `name` over the stored answers; stored verdicts are reused."""
    scorer, version = _scorer(run, like, name)
    answers = samples_of(run.folder, like.evaluation, like.stage)
    if any(not holds_answer(answer) and answer.get("scores", {}).get(name) is None for answer in answers):
        raise Unavailable(f"run {run.id}: verdicts are stored and no answers, which {name} could grade.")
    values = [_value(answer, name, scorer) for answer in answers]
    mean, error = mean_and_error([value or 0.0 for value in values])
    update = {"scorer": name, "value": mean, "stderr": error, "n": len(values), "version": version}
    update |= {"undecided": values.count(None)}
    return like.model_copy(update=update)


def _value(answer: Mapping[str, Any], name: str, scorer: Grader) -> float | None:
    stored = answer.get("scores", {}).get(name)
    if stored is not None:
        return float(stored)
    with patience(PATIENCE if name in answer.get("scores", {}) else 1.0):
        verdict = scorer(answer["target"], answer["response"])
    return None if verdict is None else float(verdict)


def _scorer(run: Run, like: Score, name: str) -> tuple[Grader, int]:
    """(scorer, version of its evaluation); a function from outside keeps the recorded version."""
    if ":" in name:
        return _imported(name), like.version
    evaluation = evaluation_of(run.record, like.evaluation)
    generation = generation_of(evaluation)
    known = graders(generation) if generation is not None else {}
    if name not in known or evaluation is None:
        accepted = ", ".join([*sorted(known), "or MODULE:FUNCTION"])
        raise ConfigError([Problem("--scorer", f"{like.evaluation}={name}", accepted)])
    return known[name], evaluation.version


def _imported(name: str) -> Grader:
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            [Problem("--scorer", name, "MODULE:FUNCTION that can be imported here", str(error))]
        ) from None
    finally:
        sys.path.pop(0)
