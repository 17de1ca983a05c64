"""Scores made again from stored answers by another scorer, without a model.

`gsm8k=strict` takes a scorer of the task's definition; `gsm8k=my_module:my_scorer` any function (target, response) ->
bool or number that Python can import.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.record import Score
from sdsbench.results.frames import samples_of
from sdsbench.results.tables.runs import Run
from sdsbench.tasks import base as tasks

Scorer = Callable[[str, str], float]  # (target, response)


def rescored(runs: Sequence[Run], choice: str, stage: str = "trained") -> list[Run]:
    """The runs with the chosen scorer as the headline of its evaluation; others are as they were.

    A scorer that a run's record holds is taken from there; else it is computed from the stored answers.
    Raises ConfigError for a choice that names no scorer, Unavailable for a run without stored answers.
    """
    evaluation, _, name = choice.partition("=")
    if not (evaluation and name):
        raise ConfigError([Problem("--scorer", choice, "EVALUATION=SCORER, such as gsm8k=strict")])
    return [_one(run, evaluation, name, stage) for run in runs]


def _one(run: Run, evaluation: str, name: str, stage: str) -> Run:
    here = [score for score in run.record.scores if score.evaluation == evaluation and score.stage == stage]
    if not here:
        return run
    known = next((score for score in here if score.scorer == name), None)
    chosen = known or _computed(run, here[0], name)
    others = [score.model_copy(update={"headline": False}) if score in here else score for score in run.record.scores]
    scores = [score for score in others if (score.evaluation, score.stage, score.scorer) != (evaluation, stage, name)]
    scores.append(chosen.model_copy(update={"headline": True}))
    return Run(run.folder, run.record.model_copy(update={"scores": scores}), run.flat)


def _computed(run: Run, like: Score, name: str) -> Score:
    scorer = _scorer(run, like.evaluation, name)
    answers = samples_of(run.folder, like.evaluation, like.stage)
    values = [float(scorer(answer["target"], answer["response"])) for answer in answers]
    mean = sum(values) / len(values)
    error = (
        math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) if len(values) > 1 else None
    )
    update = {"scorer": name, "value": mean, "stderr": error, "n": len(values)}
    return like.model_copy(update=update)


def _scorer(run: Run, evaluation: str, name: str) -> Scorer:
    if ":" in name:
        return _imported(name)
    task_class, config_class = tasks.lookup(run.record.task)
    known: dict[str, Callable[[dict[str, Any], str], bool]] = {}
    for definition in task_class(config_class(**run.record.config["task"])).evaluations():
        if definition.name == evaluation and isinstance(definition, tasks.Generation):
            known |= definition.scorers
    if name not in known:
        accepted = ", ".join([*sorted(known), "or MODULE:FUNCTION"])
        raise ConfigError([Problem("--scorer", f"{evaluation}={name}", accepted)])
    return lambda target, response: known[name](_row(target), response)


def _row(target: str) -> dict[str, Any]:
    """The gold answer where the scorers of the text tasks look for it."""
    return {"answer": target, "solution": f"\\boxed{{{target}}}"}


def _imported(name: str) -> Scorer:
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
