"""`task.tokenize=together` gives the tokens of LoRA-SB's train_tokenize_function (see authors/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdsbench.models.location import folder_of
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.tasks.base import TextExample, TextTaskConfig
from sdsbench.tasks.prompts import alpaca
from sdsbench.training.tokens import encode, prompt_ids
from tests.tasks import published_tokenizers

ROWS = [json.loads(line) for line in (Path(__file__).parent / "authors" / "tokens.jsonl").read_text().splitlines()]
LENGTH = 512


def shipped(model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder_of(compose_run([f"model={model}"]).model)[0])


TOKENIZERS = {
    "micro": lambda: shipped("micro"),
    "smollm2": lambda: shipped("smollm2_135m"),
    "mistral_7b_v0.1": published_tokenizers.mistral,
    "llama3": published_tokenizers.llama3,
}


def encoded(row: dict[str, Any], tokenizer: Any, tokenize: Any) -> Any:
    config = TextTaskConfig(name="", train_set="", tokenize=tokenize)
    return next(encode([TextExample(alpaca(row["query"]), row["response"])], tokenizer, LENGTH, config))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenising_together_equals_the_authors_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    assert len(ROWS) == 40
    for row in ROWS:
        theirs = row["tokenizers"][name]
        ours = encoded(row, tokenizer, "together")
        assert list(ours.ids) == theirs["ids"]
        assert min(ours.first_target, len(ours.ids)) == theirs["masked"]


@pytest.mark.parametrize(("name", "differing"), [("micro", 0), ("smollm2", 0), ("mistral_7b_v0.1", 40), ("llama3", 9)])
def test_tokenising_apart_keeps_the_tokens_of_the_prompt(name: str, differing: int) -> None:
    """The default gives the prompt's own tokens; only a response's first token differs with some tokenizers."""
    tokenizer = TOKENIZERS[name]()
    differences = 0
    for row in ROWS:
        ours, together = (encoded(row, tokenizer, choice) for choice in ("apart", "together"))
        first = ours.first_target
        assert list(ours.ids[:first]) == prompt_ids([alpaca(row["query"])], tokenizer, "tokenizer")[0][:LENGTH]
        differences += ours.ids[first : first + 1] != together.ids[first : first + 1]
    assert differences == differing


@pytest.mark.parametrize(("choice", "expected"), [("tokenizer", []), ("always", [1]), ("never", [])])
def test_begin_token_follows_the_tokenizer_unless_configured(choice: Any, expected: list[int]) -> None:
    tokenizer = shipped("micro")
    plain = tokenizer("How many?", add_special_tokens=False)["input_ids"]
    assert prompt_ids(["How many?"], tokenizer, choice) == [[*expected, *plain]]


def test_begin_token_of_the_tokenizer_is_kept_once() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = shipped("micro")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    plain = tokenizer("How many?", add_special_tokens=False)["input_ids"]
    texts = ["How many?", "<bos>How many?"]  # a chat template writes the begin token itself
    found = prompt_ids(texts, tokenizer, "tokenizer")
    assert found == [[1, *plain], [1, *plain]], "no end token before the answer"
    assert prompt_ids(["How many?"], tokenizer, "never") == [plain]
