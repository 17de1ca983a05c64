"""The rows of MetaMathQA on which LoRA-Pro's launch trains, and their tokens (llama_dataset_preprocessing.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.data import sources
from sdsbench.data.data_config import DataConfig
from sdsbench.models.load import load_tokenizer
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.run_data import load_run
from sdsbench.tasks import base
from sdsbench.training.tokens import encode

HEAD = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def launch_config(*words: str) -> RunConfig:
    """The configuration of the authors' launch with a small model on embedded data."""
    common = ["protocol=lora_pro/metamath", "variant=code", "method=lora_pro", "model=micro", "data.source=embedded"]
    return compose_run([*common, "eval.limit=1", *words])


def texts(row: Mapping[str, Any]) -> tuple[str, str]:
    """The authors' x and y: the prompt, which ends with a line break, and the response."""
    return f"{HEAD}\n\n### Instruction:\n{row['query']}\n\n### Response:\n", row["response"]


def authors_rows(tokenizer: Any, most: int, count: int) -> list[Mapping[str, Any]]:
    """The authors' loop: the first `count` rows whose type contains GSM and which have fewer than `most` tokens.

    The authors' count includes the begin token but not the end token.
    """
    found: list[Mapping[str, Any]] = []
    for row in sources.load("metamathqa", "train", DataConfig(source="embedded")):
        x, y = texts(row)
        if len(tokenizer(x + " " + y)["input_ids"]) >= most or "GSM" not in row["type"]:
            continue
        if len(found) == count:
            break
        found.append(row)
    return found


def test_training_rows_are_the_first_short_rows_made_from_gsm8k() -> None:
    config = launch_config("data.max_tokens=76", "data.train_limit=40")
    expected = authors_rows(load_tokenizer(config.model), 76, 40)
    assert list(load_run(config).training) == expected
    everything = sources.load("metamathqa", "train", DataConfig(source="embedded"))
    gsm8k = [row for row in everything if "GSM" in row["type"]]
    assert expected != gsm8k[:40], "some rows are too long"
    free = launch_config("data.max_tokens=null", "task.train_types=all", "data.train_limit=40")
    assert list(load_run(free).training) == list(everything)[:40]


def test_tokens_and_targets_equal_the_authors() -> None:
    """The text is prompt, space, response and end token; as many tokens as the prompt alone has carry no loss."""
    config = launch_config()
    tokenizer, task = load_tokenizer(config.model), base.build(config.task)
    rows = authors_rows(tokenizer, 512, 20)
    encoded = list(encode(map(task.training_example, rows), tokenizer, config.train.max_length, config.task))
    for row, example in zip(rows, encoded, strict=True):
        x, y = texts(row)
        assert list(example.ids) == tokenizer(x + " " + y + tokenizer.eos_token)["input_ids"]
        assert example.first_target == len(tokenizer(x)["input_ids"])
        assert task.evaluations()[0].prompt({"question": row["query"]}) == x


def test_row_choices_that_leave_no_rows_or_need_missing_columns_are_refused() -> None:
    with pytest.raises(Unavailable, match=r"task.train_types=gsm: accepted: all, or .* `type` .* answer, question"):
        load_run(launch_config("task.train_set=gsm8k"))
    with pytest.raises(Unavailable, match=r"data\.max_tokens and the task leave no training row"):
        load_run(launch_config("data.max_tokens=5", "data.train_limit=40"))
    with pytest.raises(ConfigError, match=r"data\.max_tokens.*null with task=glue/rte"):
        compose_run(["task=glue/rte", "model=minilm", "data.max_tokens=100"])
