"""Verdicts per question equal those of lm-eval's own tasks on real rows, with the same model and prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from sdsbench.data import sources
from sdsbench.data.data_config import DataConfig
from sdsbench.data.sources import Rows
from sdsbench.evaluation.text import evaluate_text
from sdsbench.models.load import load as load_model
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.tasks import base

pytestmark = [pytest.mark.slow, pytest.mark.local_data]
ROWS = 100


def load_setting(task: str, data_root: Path, *overrides: str):
    config = compose_run(["model=micro", f"task={task}", "data.source=local", f"data.root={data_root}", *overrides])
    loaded = load_model(config.model, torch.float32)
    (evaluation,) = base.build(config.task).evaluations()
    rows = sources.load(evaluation.dataset, "test", DataConfig(source="local", root=str(data_root))).take(range(ROWS))
    return loaded, evaluation, rows


def lm_eval_samples(config: dict, rows: Rows, lm) -> list[dict]:
    import datasets
    from lm_eval import evaluator
    from lm_eval.api.task import ConfigurableTask

    table = datasets.Dataset.from_list(list(rows))
    task = ConfigurableTask(
        config={"task": "theirs", "custom_dataset": lambda **_: {"test": table}, "test_split": "test", **config}
    )
    found = evaluator.evaluate(lm=lm, task_dict={"theirs": task}, bootstrap_iters=0, log_samples=True)
    return found["samples"]["theirs"]


def own_gsm8k() -> dict:
    """The configuration of lm-eval's gsm8k.yaml, without its data set and few-shot examples."""
    import lm_eval.tasks

    path = Path(lm_eval.tasks.__path__[0]) / "gsm8k" / "gsm8k.yaml"
    config = yaml.safe_load(path.read_text())
    for key in ("task", "tag", "dataset_path", "dataset_name", "training_split", "fewshot_split", "num_fewshot"):
        config.pop(key)
    return {**config, "num_fewshot": 0}


def hf_model(loaded):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=8, device="cpu")


def scripted(answer: Callable[[int], str]):
    """A model that gives prepared answers, so that correct, wrong and malformed ones all occur."""
    from lm_eval.api.model import LM

    class Scripted(LM):
        def generate_until(self, requests, disable_tqdm=False):
            return [answer(request.doc_id) for request in requests]

        def loglikelihood(self, requests, disable_tqdm=False):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    return Scripted()


def prepared_answer(rows: Rows, index: int) -> str:
    gold = rows[index]["answer"].rsplit("####", 1)[1].strip()
    forms = (
        f"So.\n#### {gold}\nThe answer is: {gold}", f"The answer is: {gold}.", f"It costs ${gold}", f"{gold}.00",
        f"#### {gold}\nThe answer is: 1{gold}", f"#### 9{gold}\nThe answer is: {gold}", "no number", f"#### ${gold}",
        f"1{gold},", "", f"{gold} of {int(gold.replace(',', '')):,}", f"-{gold}",
    )  # fmt: skip
    return forms[index % len(forms)]


def lm_eval_verdicts(samples: list[dict], filter_name: str) -> list[float]:
    chosen = [sample for sample in samples if sample["filter"] == filter_name]
    return [float(sample["exact_match"]) for sample in sorted(chosen, key=lambda sample: sample["doc_id"])]


def test_gsm8k_scorers_equal_lm_evals_filters_on_prepared_answers(data_root):
    _, evaluation, rows = load_setting("gsm8k", data_root)
    theirs = lm_eval_samples(own_gsm8k(), rows, scripted(lambda index: prepared_answer(rows, index)))
    for scorer, filter_name in (("flexible", "flexible-extract"), ("strict", "strict-match")):
        ours = [float(evaluation.scorers[scorer](row, prepared_answer(rows, index))) for index, row in enumerate(rows)]
        assert ours == lm_eval_verdicts(theirs, filter_name)
        assert 10 < sum(ours) < 90


def test_gsm8k_generations_and_flexible_scores_equal_lm_evals(data_root):
    loaded, evaluation, rows = load_setting("gsm8k", data_root, "task.max_new_tokens=48")
    ours = evaluate_text(loaded.model, loaded.tokenizer, evaluation, rows, "untrained", 16).samples
    config = own_gsm8k() | {
        "doc_to_text": lambda doc: evaluation.prompt(doc),
        "generation_kwargs": {"until": list(evaluation.stop), "do_sample": False, "max_gen_toks": 48},
    }
    theirs = lm_eval_samples(config, rows, hf_model(loaded))
    texts = {sample["doc_id"]: sample["resps"][0][0] for sample in theirs}
    assert [sample["response"].strip() for sample in ours] == [texts[index].strip() for index in range(ROWS)]
    assert [sample["scores"]["flexible"] for sample in ours] == lm_eval_verdicts(theirs, "flexible-extract")
    assert len(set(texts.values())) > 10, "the model's answers differ from row to row"


def test_openbookqa_likelihoods_equal_lm_evals(data_root):
    loaded, evaluation, rows = load_setting("commonsense/openbookqa", data_root, "task.scorers=[likelihood]")
    ours = evaluate_text(loaded.model, loaded.tokenizer, evaluation, rows, "untrained", 16).samples
    config = {
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: evaluation.prompt(doc),
        "doc_to_choice": lambda doc: list(evaluation.choices(doc)),
        "doc_to_target": lambda doc: evaluation.gold(doc),
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    theirs = sorted(lm_eval_samples(config, rows, hf_model(loaded)), key=lambda sample: sample["doc_id"])
    assert [sample["scores"]["likelihood"] for sample in ours] == [float(sample["acc"]) for sample in theirs]
    for mine, their in zip(ours, theirs, strict=True):
        totals = [
            float(pair[0][0]) for pair in their["resps"]
        ]  # lm-eval counts the prompt's last line break as part of the answer, so only differences are equal
        assert differences_to_first(mine["response"]) == pytest.approx(differences_to_first(totals), abs=1e-3)


def differences_to_first(values: list[float]) -> list[float]:
    return [value - values[0] for value in values]
