"""Any task of lm-eval by its name, on data that is here: what a model could do before, beside what it learns."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import Score
from sdsbench.data import local_files
from sdsbench.data.draw import Order, draw
from sdsbench.evaluation.text import Evaluated, in_memory
from sdsbench.tasks.base import BeginToken

FIRST = ("acc_norm", "acc", "exact_match", "f1")
"""The metric to rank by is the first of these that a task has, else its own first one."""


def evaluate_named(
    model: Any, tokenizer: Any, name: str, stage: str, batch_size: int, root: str | None, limit: int | None,
    order: Order, padded: bool, begin_token: BeginToken = "tokenizer",
) -> Evaluated:  # fmt: skip
    """The scores of an lm-eval task (or group of tasks) with its own prompt, examples and metrics.

    Its data is looked for below `root` under the hub's name for it, then in the cache of `datasets`. Raises Unavailable
    for a name that lm-eval does not know, data that is not here, and tasks that score whole texts or run code.
    """
    from lm_eval import evaluator

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):  # lm-eval's bars; our own progress has its own stream
        loaded = _load(name, root)
        tasks = loaded["tasks"]
        for task in tasks.values():
            if task.OUTPUT_TYPE == "loglikelihood_rolling" or getattr(task, "UNSAFE_CODE", False):
                raise Unavailable(f"eval.also: {name} scores whole texts or runs code; accepted: choices or generation")
        chosen = {key: _rows(task, limit, order) for key, task in tasks.items()}
        lm = in_memory(model, tokenizer, batch_size, lambda _: None, begin_token, {}, {}, padded)
        found = evaluator.evaluate(lm=lm, task_dict=loaded, samples=chosen, bootstrap_iters=0, log_samples=True)
    samples = _samples(found["samples"][name]) if list(tasks) == [name] else []
    counts = found["n-samples"]
    questions = sum(counts[key]["effective"] for key in tasks)
    scores = list(_scores(name, stage, found, questions, samples))
    if not scores:
        raise Unavailable(f"eval.also: {name} has no metric that is a number of the whole task; name its parts")
    return Evaluated(scores, samples)


def _load(name: str, root: str | None) -> dict[str, Any]:
    """The task, or the tasks of a group, with their data."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if name not in manager.all_tasks:
        from sdsbench.core.spelling import nearest

        raise Unavailable(f"eval.also: {name}: accepted: a task of lm-eval. {nearest(name, manager.all_tasks)}".strip())
    try:
        with _local_data(root):
            return manager.load([name])
    except Unavailable:
        raise
    except Exception as error:  # datasets raises many kinds for data that is not there
        raise Unavailable(
            f"eval.also: {name}: its data is not here ({error}). What would do: its data set below data.root under the "
            "hub's name for it, in any layout of docs/data.md, or HF_HUB_OFFLINE=0 once with a network"
        ) from None


@contextlib.contextmanager
def _local_data(root: str | None) -> Iterator[None]:
    """Inside, lm-eval's tasks find their data sets below a folder first. lm-eval has no other door for groups."""
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
    """The splits of a hub set that lie below `root`."""
    for folder in (root / path, root / path.rpartition("/")[2]):
        places = [folder / configuration] if configuration and (folder / configuration).is_dir() else [folder]
        for place in places:
            files = {split: local_files.find(place, [split]) for split in ("train", "validation", "test")}
            if any(files.values()):
                return {split: local_files.read(f, ()) for split, f in files.items() if f is not None}
    return {}


def _rows(task: Any, limit: int | None, order: Order) -> list[int]:
    """Numbers of the questions that are asked: all, or a draw, or the first ones."""
    count = len(task.eval_docs)
    if limit is None or limit >= count:
        return list(range(count))
    return list(range(limit)) if order == "first" else draw([None] * count, limit)


def _scores(
    name: str, stage: str, found: Mapping[str, Any], questions: int, samples: list[dict[str, Any]]
) -> Iterator[Score]:
    results = found["results"].get(name, {})
    values = {key.partition(",")[0]: value for key, value in results.items() if isinstance(value, float) and "," in key}
    metrics = [metric for metric in values if not metric.endswith("_stderr")]
    first = next((metric for metric in FIRST if metric in metrics), metrics[0] if metrics else "")
    higher = found["higher_is_better"].get(name, {})
    for metric in metrics:
        error = results.get(next((key for key in results if key.startswith(f"{metric}_stderr")), ""))
        yield Score(
            evaluation=name, version=int(found["versions"].get(name) or 0), scorer=metric, stage=stage,  # type: ignore[arg-type]
            value=values[metric], stderr=error if isinstance(error, float) else None, n=questions,
            headline=metric == first, better="higher" if higher.get(metric, True) else "lower",
            unit="share" if 0 <= values[metric] <= 1 else "number", retention=True,
        )  # fmt: skip


def _samples(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a question with its metrics, as far as they are numbers."""
    by_question = {sample["doc_id"]: sample for sample in found}
    return [
        {
            "index": index,
            "id": f"{number}-{sample['doc_hash'][:12]}",
            "target": str(sample["target"]),
            "scores": {key: float(v) for key in sample["metrics"] if isinstance(v := sample[key], int | float)},
        }
        for index, (number, sample) in enumerate(sorted(by_question.items()))
    ]
