"""Evaluate any lm-eval task by name on local data, to measure which abilities a model keeps while it learns."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import Score, Unit
from sdsbench.core.texts import some_of
from sdsbench.data import local_files
from sdsbench.data.draw import Order, draw
from sdsbench.evaluation.generation import check_generation
from sdsbench.evaluation.metrics import mean_and_error
from sdsbench.evaluation.text import Evaluated, Question, in_memory
from sdsbench.training.tokens import EncodedText, prompt_ids

FIRST = ("acc_norm", "acc", "exact_match", "f1")
"""The headline metric is the first of these that the task has, else the task's own first metric."""
SHARES = {"acc", "accuracy", "em", "f1", "match", "mcc", "pct", "precision", "rate", "recall"}
"""A metric whose name has one of these words (`exact_match`, `prompt_level_strict_acc`) is shown in points of 100, as
the accuracies and Matthews correlations of this project's own tasks are."""
SPLITS = ("train", "validation", "test", "dev")
LISTED = 12  # largest number of tasks that an error message lists
Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""watch(name, units) is a context manager that shows progress; it yields a function that takes newly done units."""


def require_named(names: Sequence[str], root: str | None) -> None:
    """Check lm-eval tasks and their data before the model is loaded or trained.

    Raises Unavailable with one line for each task that `evaluate_named` would refuse.
    """
    problems = []
    for name in names:
        try:
            _load(name, root)
        except Unavailable as error:
            problems.append(str(error))
    if problems:
        raise Unavailable("\n".join(problems))


def evaluate_named(
    model: Any, tokenizer: Any, name: str, stage: str, batch_size: int, root: str | None, limit: int | None,
    order: Order, padded: bool, watch: Watch,
) -> Evaluated:  # fmt: skip
    """Scores of an lm-eval task (or group of tasks) with its own prompt, few-shot examples and metrics.

    Data is searched below `root` under its hub name, then in the cache of `datasets`; `limit` applies to each task of a
    group. Raises Unavailable for a name that lm-eval does not know or that has no score of its own, for missing data,
    and for tasks that score whole texts, run code or sample their answers.
    """
    from lm_eval import evaluator

    truncated: dict[Question, bool] = {}
    cut: dict[Question, int] = {}
    loaded = _load(name, root)  # not cached: a reused task would continue its random draw of few-shot examples
    tasks = loaded["tasks"]
    chosen = {key: _rows(task, limit, order) for key, task in tasks.items()}
    asked = [(task, task.eval_docs[number]) for key, task in tasks.items() for number in chosen[key]]
    _check_answers(model, tokenizer, asked)
    with watch(name, sum(_requests(task, doc) for task, doc in asked)) as progress:
        lm = in_memory(model, tokenizer, batch_size, progress, "tokenizer", truncated, cut, padded)
        with contextlib.redirect_stderr(io.StringIO()):
            found = evaluator.evaluate(lm=lm, task_dict=loaded, samples=chosen, bootstrap_iters=0, log_samples=True)
    samples = _samples(found["samples"], tasks, grouped=list(tasks) != [name])
    counts = {"n": len(samples), "prompts_cut": sum(tokens > 0 for tokens in cut.values()),
              "truncated": sum(truncated.values()) if truncated else None}  # fmt: skip
    scores = list(_scores(name, stage, found, counts, samples))
    if not scores:
        raise Unavailable(f"eval.also: {name} has no metric that is a number of the whole; {_its_tasks(tasks)}")
    return Evaluated(scores, samples)


def _check_kind(name: str, loaded: Mapping[str, Any]) -> None:
    """Raises Unavailable for a task without a score, or of a kind that is not supported here."""
    tasks = loaded["tasks"]
    if name not in loaded["groups"] and list(tasks) != [name]:
        raise Unavailable(f"eval.also: {name} is a tag of lm-eval, which has no score of its own; {_its_tasks(tasks)}")
    for task in tasks.values():
        if task.OUTPUT_TYPE == "loglikelihood_rolling" or getattr(task, "UNSAFE_CODE", False):
            raise Unavailable(f"eval.also: {name} scores whole texts or runs code; accepted: choices or generation")
        if (task.config.generation_kwargs or {}).get("do_sample") or task.config.repeats > 1:
            raise Unavailable(f"eval.also: {name} draws its answers; accepted: choices or greedy generation")


def _its_tasks(tasks: Mapping[str, Any]) -> str:
    return f"accepted: its tasks, which are {some_of(list(tasks), LISTED)}"


def _check_answers(model: Any, tokenizer: Any, asked: Sequence[tuple[Any, Any]]) -> None:
    """Check on a few generation prompts that batched answers are the model's own (`check_generation`)."""
    prompts = [task.doc_to_text(doc) for task, doc in asked if task.OUTPUT_TYPE == "generate_until"][:2]
    if prompts:
        encoded = prompt_ids(prompts, tokenizer, "tokenizer")
        check_generation(model, [EncodedText(tuple(ids), 0) for ids in encoded])


def _requests(task: Any, doc: Any) -> int:
    """Number of model requests for one question: one for each choice."""
    return len(task.doc_to_choice(doc)) if task.OUTPUT_TYPE == "multiple_choice" else 1


def _load(name: str, root: str | None) -> dict[str, Any]:
    """The task, or the tasks of a group, by name, with their data. Raises Unavailable if they cannot be scored."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager()
    if name not in manager.all_tasks:
        from sdsbench.core.spelling import nearest

        raise Unavailable(f"eval.also: {name}: accepted: a task of lm-eval. {nearest(name, manager.all_tasks)}".strip())
    try:
        with _local_data(root), contextlib.redirect_stderr(io.StringIO()):  # hides lm-eval's progress bars
            loaded = manager.load([name])
    except Unavailable:
        raise
    except Exception as error:  # datasets raises errors of many types for missing data
        if isinstance(error, ImportError) or isinstance(error.__cause__ or error.__context__, ImportError):
            raise Unavailable(f"eval.also: {name} needs packages that are not here: {error}") from None
        why = f"no split {error}" if isinstance(error, KeyError) else str(error)
        raise Unavailable(
            f"eval.also: {name}: its data is not here ({why}). Accepted: its data set below data.root under the "
            "hub's name for it, in any layout of docs/data.md, or HF_HUB_OFFLINE=0 once with a network"
        ) from None
    _check_kind(name, loaded)
    return loaded


@cache
def _manager() -> Any:
    """lm-eval's index of tasks, cached because it reads thousands of files in about seven seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


@contextlib.contextmanager
def _local_data(root: str | None) -> Iterator[None]:
    """While active, lm-eval's tasks load their data from `root` first, by a replaced `datasets.load_dataset`.

    lm-eval offers no setting for this that also works for groups of tasks.
    """
    import datasets

    original = datasets.load_dataset

    def load(path: str, name: str | None = None, **options: Any) -> Any:
        found = _splits(Path(root), path, name) if root else {}
        return datasets.DatasetDict(found) if found else original(path=path, name=name, **options)

    datasets.load_dataset = load
    try:
        yield
    finally:
        datasets.load_dataset = original


def _splits(root: Path, path: str, configuration: str | None) -> dict[str, Any]:
    """The splits of a hub data set found below `root`, by name."""
    for folder in (root / path, root / path.rpartition("/")[2]):
        places = [folder / configuration] if configuration and (folder / configuration).is_dir() else [folder]
        for place in places:
            files = {split: local_files.find(place, [split]) for split in SPLITS}
            if any(files.values()):
                return {split: local_files.read(f, ()) for split, f in files.items() if f is not None}
    return {}


def _rows(task: Any, limit: int | None, order: Order) -> list[int]:
    """Indices of the evaluated questions: all, `limit` drawn at random, or the first `limit`."""
    count = len(task.eval_docs)
    if limit is None or limit >= count:
        return list(range(count))
    return list(range(limit)) if order == "first" else draw([None] * count, limit)


def _scores(
    name: str, stage: str, found: Mapping[str, Any], counts: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> Iterator[Score]:
    """One score for each metric, and for each filter (way to extract the answer) if there are several."""
    results = found["results"].get(name, {})
    keys = [key for key, value in results.items() if isinstance(value, float) and "_stderr," not in key and "," in key]
    metrics = [key.partition(",")[0] for key in keys]
    first = next((keys[metrics.index(metric)] for metric in FIRST if metric in metrics), keys[0] if keys else "")
    higher = found["higher_is_better"].get(name, {})
    for key, metric in zip(keys, metrics, strict=True):
        scorer = _scorer(key, metrics.count(metric) > 1)
        yield Score(
            evaluation=name, version=int(float(found["versions"].get(name) or 0)), scorer=scorer, stage=stage,  # type: ignore[arg-type]
            value=results[key], stderr=_error(results[key], scorer, samples), headline=key == first,
            better="higher" if higher.get(metric, True) else "lower",
            unit=_unit(metric, results[key]), retention=True, **counts,
        )  # fmt: skip


def _unit(metric: str, value: float) -> Unit:
    """The unit by the metric's name, so that it is one unit before and after training.

    A value that is no share shows that the task computes the metric in points of 100 itself, as SQuAD does.
    """
    return "share" if SHARES.intersection(metric.split("_")) and abs(value) <= 1 else "number"


def _scorer(key: str, several: bool) -> str:
    """The name of a metric, followed by its filter's name if it has several filters."""
    metric, _, way = key.partition(",")
    return f"{metric}_{way}" if several else metric


def _error(value: float, scorer: str, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """The standard error of a value that is a mean over all questions; None for other values."""
    values = [sample["scores"].get(scorer) for sample in samples]
    if not values or None in values:
        return None
    mean, error = mean_and_error(values)
    return error if math.isclose(mean, value, abs_tol=1e-9) else None


def _samples(
    found: Mapping[str, list[dict[str, Any]]], tasks: Mapping[str, Any], grouped: bool
) -> list[dict[str, Any]]:
    """One row for each question, with those of its metrics that are numbers."""
    questions: dict[Question, dict[str, Any]] = {}
    for key in tasks:
        ways: dict[str, set[str]] = {}
        for sample in found[key]:
            for metric in sample["metrics"]:
                ways.setdefault(metric, set()).add(sample["filter"])
        for sample in found[key]:
            number = sample["doc_id"]
            place = f"{key}-{number}" if grouped else f"{number}"
            row = {"id": f"{place}-{sample['doc_hash'][:12]}", "target": str(sample["target"]), "scores": {}}
            scores = questions.setdefault((key, number), row)["scores"]
            for metric in sample["metrics"]:
                if isinstance(value := sample[metric], int | float):
                    scores[_scorer(f"{metric},{sample['filter']}", len(ways[metric]) > 1)] = float(value)
    return [{"index": index, **questions[question]} for index, question in enumerate(sorted(questions))]
