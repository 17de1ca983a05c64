"""Text evaluations through lm-eval, with this project's task definitions and its generation from a model in memory."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sdsbench.core.record import Score
from sdsbench.data.sources import Rows
from sdsbench.evaluation.generation import GeneratedAnswer, Generator, Request
from sdsbench.evaluation.likelihood import continuation_log_likelihoods
from sdsbench.evaluation.metrics import mean_and_error
from sdsbench.evaluation.score_floors import chance_floor
from sdsbench.tasks.base import BeginToken, Choice, Generation, Scorer
from sdsbench.training.tokens import prompt_text

Question = tuple[str, int]
"""(name of an lm-eval task, index of a question in it)."""

Verdicts = Callable[[int, str], Mapping[str, float | None]]
"""The scorers' verdicts on a text as the answer to the request of this number."""

Answering = Callable[[Generator, Sequence[Request], Verdicts], list[GeneratedAnswer]]
"""How requests are answered: with the given generator, or with another engine that is compared with it."""


def own_answers(own: Generator, requests: Sequence[Request], verdicts: Verdicts) -> list[GeneratedAnswer]:
    """The answers of this project's generation."""
    return own.answers(requests)


@dataclass
class Evaluated:
    """The scores of one evaluation set, and one row of results for each question."""

    scores: list[Score]
    samples: list[dict[str, Any]] = field(default_factory=list)


def evaluate_text(
    model: Any,
    tokenizer: Any,
    evaluation: Generation | Choice,
    rows: Rows,
    stage: str,
    batch_size: int,
    progress: Callable[[int], None] = lambda _: None,
    begin_token: BeginToken = "tokenizer",
    padded: bool = False,
    answering: Answering = own_answers,
) -> Evaluated:
    """Score a decoder on the rows of an evaluation set; each row is generated once for all scorers.

    `progress(newly finished rows)` is called after every token and graded answer, with 0 in between, and may raise.
    `padded`: compute likelihoods in padded batches with the model's own forward pass (training/own_loss.py).
    """
    from lm_eval import evaluator
    from lm_eval.api.task import ConfigurableTask

    prompt = evaluation.prompt
    evaluation = replace(evaluation, prompt=lambda row: prompt_text(prompt(row), tokenizer))
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    settings = (
        _generation_task(evaluation, rows, progress)
        if isinstance(evaluation, Generation)
        else _choice_task(evaluation, rows)
    )
    name = evaluation.name.replace("/", "_")
    truncated: dict[Question, bool] = {}
    cut: dict[Question, int] = {}
    lm = in_memory(
        model, tokenizer, batch_size, progress, begin_token, truncated, cut, padded, answering, _scorers(evaluation)
    )
    with contextlib.redirect_stderr(io.StringIO()):  # hides lm-eval's progress bars
        task = ConfigurableTask(config={"task": name, **settings})
        found = evaluator.evaluate(lm=lm, task_dict={name: task}, bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    scorers = list(evaluation.scorers) if isinstance(evaluation, Generation) else ["likelihood"]
    kept = [_sample(evaluation, sample, scorers, truncated.get((name, sample["doc_id"]))) for sample in samples]
    for sample in kept:
        if tokens := cut.get((name, sample["index"])):
            sample["prompt_cut"] = tokens
    return Evaluated([_score(evaluation, scorer, stage, kept) for scorer in scorers], kept)


def _generation_task(evaluation: Generation, rows: Rows, progress: Callable[[int], None]) -> dict[str, Any]:
    def verdicts(doc: Any, results: Sequence[str]) -> dict[str, float]:
        progress(0)  # grading thousands of answers takes minutes and must stay interruptible
        return {name: _number(scorer(doc, results[0])) for name, scorer in evaluation.scorers.items()}

    return {
        **_common(rows, evaluation.version, list(evaluation.scorers)),
        "output_type": "generate_until",
        "doc_to_text": lambda doc: evaluation.prompt(doc),
        "doc_to_target": lambda doc: evaluation.target(doc),
        "generation_kwargs": {
            "until": list(evaluation.stop),
            "do_sample": False,
            "max_gen_toks": evaluation.max_new_tokens,
            "num_beams": evaluation.beams,
        },
        "process_results": verdicts,
    }


def _scorers(evaluation: Generation | Choice) -> Mapping[str, Scorer]:
    return evaluation.scorers if isinstance(evaluation, Generation) else {}


def _number(verdict: float | None) -> float:
    """A grader's verdict as the number that lm-eval averages: NaN if the grader was undecided."""
    return math.nan if verdict is None else float(verdict)


def _choice_task(evaluation: Choice, rows: Rows) -> dict[str, Any]:
    def correct(doc: Any, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
        likelihoods = [likelihood for likelihood, _ in results]
        return {"likelihood": float(likelihoods.index(max(likelihoods)) == evaluation.gold(doc))}

    return {
        **_common(rows, evaluation.version, ["likelihood"]),
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: evaluation.prompt(doc),
        "doc_to_choice": lambda doc: list(evaluation.choices(doc)),
        "doc_to_target": lambda doc: evaluation.gold(doc),
        "target_delimiter": "",
        "process_results": correct,
    }


def _common(rows: Rows, version: int, metrics: Sequence[str]) -> dict[str, Any]:
    import datasets

    table = datasets.Dataset.from_list(list(rows))
    return {
        "custom_dataset": lambda **_: {"test": table},
        "test_split": "test",
        "num_fewshot": 0,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics],
        "metadata": {"version": version},
    }


def in_memory(
    model: Any,
    tokenizer: Any,
    batch_size: int,
    progress: Callable[[int], None],
    begin_token: BeginToken,
    truncated: dict[Question, bool],
    cut: dict[Question, int],
    padded: bool,
    answering: Answering = own_answers,
    scorers: Mapping[str, Scorer] | None = None,
) -> Any:
    """An lm-eval model that uses this project's generation and likelihoods.

    lm-eval's interface returns texts only, so for each question `truncated` receives whether its answer was truncated,
    and `cut` how many tokens were removed from its prompt. `scorers` give the verdicts by which `answering` may compare
    engines.
    """
    from lm_eval.api.model import LM

    class InMemory(LM):
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            wanted = []
            for request in requests:
                prompt, settings = request.args
                until = settings.get("until") or []
                stop = (until,) if isinstance(until, str) else tuple(until)
                wanted.append(Request(prompt, settings.get("max_gen_toks", 256), stop, settings.get("num_beams", 1)))
            own = Generator(model, tokenizer, batch_size, progress, begin_token)

            def verdicts(number: int, text: str) -> dict[str, float | None]:
                return {name: scorer(requests[number].doc, text) for name, scorer in (scorers or {}).items()}

            answers = answering(own, wanted, verdicts)
            for request, answer in zip(requests, answers, strict=True):
                question = request.task_name, request.doc_id
                truncated[question], cut[question] = answer.truncated, answer.prompt_cut
            return [answer.text for answer in answers]

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            pairs = [request.args for request in requests]

            def on_cut(number: int, tokens: int) -> None:
                cut[requests[number].task_name, requests[number].doc_id] = tokens

            return continuation_log_likelihoods(
                model, tokenizer, pairs, batch_size, progress, begin_token, padded, on_cut
            )

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            raise TypeError("no task of sdsbench scores whole texts")

    return InMemory()


def _sample(
    evaluation: Generation | Choice, sample: dict[str, Any], scorers: Sequence[str], truncated: bool | None
) -> dict[str, Any]:
    doc = sample["doc"]
    if isinstance(evaluation, Generation):
        prompt, target, response = evaluation.prompt(doc), evaluation.target(doc), sample["resps"][0][0]
    else:
        prompt, target = evaluation.prompt(doc), evaluation.choices(doc)[evaluation.gold(doc)]
        response = [float(response[0][0]) for response in sample["resps"]]
    return {
        "index": sample["doc_id"],
        "id": f"{sample['doc_id']}-{sample['doc_hash'][:12]}",  # a hash alone is not unique: test sets repeat rows
        "prompt": prompt,
        "target": target,
        "response": response,
        **({"gold": evaluation.gold(doc)} if isinstance(evaluation, Choice) else {}),
        "scores": {scorer: None if math.isnan(sample[scorer]) else sample[scorer] for scorer in scorers},
        **({} if truncated is None else {"truncated": truncated}),
    }


def _score(evaluation: Generation | Choice, scorer: str, stage: str, samples: Sequence[dict[str, Any]]) -> Score:
    values = [sample["scores"][scorer] for sample in samples]
    mean, stderr = mean_and_error([value or 0.0 for value in values])
    choices = [len(sample["response"]) for sample in samples] if isinstance(evaluation, Choice) else None
    cut = [sample["truncated"] for sample in samples if "truncated" in sample]
    return Score(
        evaluation=evaluation.name, version=evaluation.version, scorer=scorer, stage=stage,  # type: ignore[arg-type]
        value=mean, stderr=stderr, n=len(values), headline=scorer == evaluation.headline,
        floor=chance_floor(choices) if choices else None, floor_of="chance" if choices else None,
        truncated=sum(cut) if cut else None, undecided=values.count(None),
        prompts_cut=sum("prompt_cut" in sample for sample in samples),
    )  # fmt: skip
