"""Cross-checks between the files of one run: scores recomputed from answers, losses from steps, the id from the keys.

A hash shows that a file is the one that was packed; these checks show that the packed files fit together. Answers are
graded again, so a changed score, verdict, answer or learning rate contradicts another file. A change made consistently
in all files is not found here, only by `sdsbench reproduce`, which trains the run again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sdsbench.core import samples, step_log
from sdsbench.core.errors import SdsbenchError
from sdsbench.core.limits import RECORD
from sdsbench.core.reading import read_text
from sdsbench.core.record import Record, Score, equal_scores
from sdsbench.core.run_folder import read_record
from sdsbench.core.texts import short_message, some_of
from sdsbench.evaluation import metrics
from sdsbench.results.grading import evaluation_of, graders
from sdsbench.runs.configuration.identity import recorded_id
from sdsbench.tasks.base import Choice, Generation, Labelled, generation_of

SHOWN = 3
NEAR = 1e-9


def contradictions(run: Path, packed: bool) -> list[str]:
    """One sentence for each contradiction between the files of a run's folder; empty if they agree.

    `packed`: the folder comes from a bundle; its config.yaml, if present, must then equal the record's configuration.
    """
    try:
        record = read_record(run / "record.json")
        lines = step_log.read(run / "metrics.jsonl")
        beside = packed and (run / "config.yaml").exists()  # a verdicts-only bundle has none
        text = read_text(run / "config.yaml", RECORD) if beside else None
        found = [*_of_configuration(record, text), *_of_tuning(record), *_of_steps(record, lines)]
        for score in record.scores:
            found += _of_log(score, lines)
        for evaluation, stage in dict.fromkeys((score.evaluation, score.stage) for score in record.scores):
            path = samples.path_of(run, evaluation, stage)
            if path.exists():
                found += _of_answers(record, evaluation, stage, samples.read(path))
    except SdsbenchError as error:
        return [str(error)]
    except Exception as error:  # a changed record may hold any value, such as a rate of zero or an unknown task
        return [f"values of another kind than a run writes ({type(error).__name__}: {str(error)[:200]})"]
    return found


def configuration_text(record: Record) -> str:
    """The text of config.yaml that a bundle stores for a run, made from the record so that the two can be compared."""
    return yaml.safe_dump(record.config, sort_keys=True)


def _of_configuration(record: Record, text: str | None) -> Iterator[str]:
    config = record.config
    if text is not None and text != configuration_text(record):
        yield "config.yaml is not the record's configuration"
    told = {
        "lr": config["train"].get("lr"), "seed": config.get("seed"), "task": config["task"].get("name"),
        "train_set": config["task"].get("train_set"), "model": config["model"].get("name"),
        "method": config["method"].get("name"), "protocol": config["protocol"].get("name"),
        "rank": config["method"].get("rank"), "alpha": config["method"].get("alpha"),
    }  # fmt: skip
    for key, value in told.items():
        if getattr(record, key) != value:
            yield f"{key} is {getattr(record, key)} in the record and {value} in its configuration"
    of_a_folder = config["model"].get("source") == "folder"  # the id depends on the folder, which no record holds
    if not of_a_folder and (identity := recorded_id(config, record.inert)) != record.run_id:
        yield f"its configuration is that of run {identity}"


def _of_tuning(record: Record) -> Iterator[str]:
    tuning = record.tuning
    if tuning is None:
        return
    known = [score for score in tuning.scores if score is not None]
    lower = any(score.better == "lower" for score in record.scores if score.headline and not score.retention)
    best = (min if lower else max)(known, default=None)
    if len(tuning.scores) != len(tuning.grid):
        yield f"{len(tuning.scores)} scores of {len(tuning.grid)} tuned values"
    elif tuning.chosen not in tuning.grid:
        yield f"{tuning.key} {tuning.chosen:g} was chosen and is not in its grid"
    elif known and not equal_scores(tuning.scores[tuning.grid.index(tuning.chosen)], best):
        yield f"{tuning.key} {tuning.chosen:g} was chosen and is not the best of its grid"
    if tuning.key == "train.lr" and record.lr != tuning.chosen:
        yield f"train.lr {tuning.chosen:g} was chosen and the run has {record.lr:g}"


def _of_steps(record: Record, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    steps = [line for line in lines if line["kind"] == "train"]
    if record.losses is None or not steps:
        return
    if [line["step"] for line in steps] != list(range(1, record.losses.steps + 1)):
        yield f"{len(steps)} steps in the log and {record.losses.steps} in the record, or not one after the other"
        return
    losses = [line["loss"] for line in steps]
    tail = losses[-max(1, len(losses) // 10) :]
    for name, value in (("first", losses[0]), ("last", losses[-1]), ("tail_mean", sum(tail) / len(tail))):
        if abs(getattr(record.losses, name) - value) > NEAR * max(1.0, abs(value)):
            yield f"{name} loss is {getattr(record.losses, name):.6g} in the record and {value:.6g} in the log"
    rates = [line["lr"] for line in steps if "lr" in line]
    if len(rates) > 1 and not 0.5 <= max(rates) / record.lr <= 1 + 1e-6:
        yield f"the log's highest rate is {max(rates):g} and the record's {record.lr:g}"


def _of_log(score: Score, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    which = (score.evaluation, score.stage, score.scorer)
    logged = [
        line
        for line in lines
        if line["kind"] == "eval"
        and (line["evaluation"], line["stage"], line["scorer"]) == which
        and line.get("along") == score.along
    ]
    told = {key: value for line in logged[-1:] for key, value in line.items() if key not in ("kind", "step")}
    if all(line["kind"] == "probe" for line in lines):  # a verdicts-only bundle keeps just the probe lines, or no log
        return
    if score.stage == "best_epoch":  # the best of several lines
        return
    if not logged:
        yield f"score of {' '.join(which)} is not in the log"
    wrong = [key for key, value in told.items() if getattr(score, key, value) != value]
    if wrong:
        yield f"score of {' '.join(which)}: {', '.join(wrong)} not as in the log"


def _of_answers(record: Record, name: str, stage: str, answers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    scores = [score for score in record.scores if (score.evaluation, score.stage) == (name, stage)]
    where = f"{name} ({stage})"
    if [answer["index"] for answer in answers] != list(range(len(answers))):
        yield f"answers to {where} are not numbered one after the other"
        return
    evaluation = evaluation_of(record, name)
    for score in scores:
        if score.n != len(answers):
            yield f"{score.scorer} of {where} counts {score.n} questions; {len(answers)} answers are stored"
        else:
            yield from _of_score(score, answers, labelled=isinstance(evaluation, Labelled))
    if (generation := generation_of(evaluation)) is not None:
        yield from _graded(generation, where, answers)
    elif isinstance(evaluation, Choice | Labelled):
        yield from _judged(evaluation, where, answers)


def _of_score(score: Score, answers: Sequence[Mapping[str, Any]], labelled: bool) -> Iterator[str]:
    where = f"{score.scorer} of {score.evaluation} ({score.stage})"
    if labelled:
        predictions, labels = ([float(answer[key]) for answer in answers] for key in ("response", "target"))
        value = metrics.compute(score.scorer, predictions, labels)
        if score.classes is not None and score.classes != len(set(predictions)):
            yield f"{where}: {score.classes} predicted classes in the record and {len(set(predictions))} in the answers"
    else:
        perplexity = score.scorer == "perplexity"  # perplexity is exp(mean loss), not a mean over answers
        verdicts = [answer.get("scores", {}).get("loss" if perplexity else score.scorer) for answer in answers]
        if score.retention and all(verdict is None for verdict in verdicts):
            return  # lm-eval makes this metric of the whole set
        value = float(np.mean([verdict or 0.0 for verdict in verdicts]))
        value = math.exp(min(value, 700.0)) if perplexity else value
        if score.undecided != verdicts.count(None):
            yield f"{where}: {score.undecided} undecided in the record and {verdicts.count(None)} in the answers"
        cut = sum(bool(answer.get("truncated")) for answer in answers)
        if score.truncated is not None and score.truncated != cut:
            yield f"{where}: {score.truncated} cut answers in the record and {cut} stored"
    if abs(score.value - value) > NEAR * max(1.0, abs(value)):
        yield f"{where} is {score.shown(score.value)} in the record and {score.shown(value)} by its answers"


def _graded(evaluation: Generation, where: str, answers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Stored verdicts that the task's graders do not give.

    What a grader leaves undecided is not held against the answers, as long as it is rare: each takes the grader to its
    limit of time, so that a bundle of nothing else would not be read in a day.
    """
    for name, grade in graders(evaluation).items():
        wrong: list[str] = []
        undecided = 0
        for answer in answers:
            stored = answer.get("scores", {}).get(name)
            if stored is None or not samples.holds_answer(answer):
                continue
            try:
                verdict = grade(str(answer.get("target", "")), str(answer.get("response", "")))
            except Exception as error:  # a scorer of a plugin, whose errors may be of any type
                yield (
                    f"answers to {where} cannot be graded again by {name} ({short_message(error)}); a task "
                    "whose scorers read other columns than answer and solution gives Generation.row_of"
                )
                break
            if verdict is not None and float(verdict) != float(stored):
                wrong.append(str(answer["index"]))
            undecided += verdict is None
            if undecided == SHOWN:
                yield f"answers to {where} have verdicts by {name} that it does not come to within its limits"
                break
        if wrong:
            yield _other_verdicts(where, name, wrong)


def _judged(evaluation: Choice | Labelled, where: str, answers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Stored verdicts that differ from the predicted classes, or from the choice of highest likelihood."""
    scorer = evaluation.headline if isinstance(evaluation, Choice) else "accuracy"
    wrong = [str(answer["index"]) for answer in answers if _stored_otherwise(evaluation, answer, scorer)]
    if wrong:
        yield _other_verdicts(where, scorer, wrong)


def _stored_otherwise(evaluation: Choice | Labelled, answer: Mapping[str, Any], scorer: str) -> bool:
    response = answer["response"]
    if isinstance(evaluation, Choice):
        if "gold" not in answer:  # older records stored answers without the gold label
            return False
        right = response.index(max(response)) == answer["gold"]
    else:
        right = answer["target"] == response
    return answer.get("scores", {}).get(scorer) != float(right)


def _other_verdicts(where: str, scorer: str, questions: Sequence[str]) -> str:
    return f"answers to {where} have other verdicts by {scorer} than stored: {some_of(questions, SHOWN)}"
