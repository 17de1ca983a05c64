"""`task.tokenize=together` makes the tokens that LoRA-SB's train_tokenize_function makes; see authors/README.md."""

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
def test_together_is_the_authors_tokenisation(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    assert len(ROWS) == 40
    for row in ROWS:
        theirs = row["tokenizers"][name]
        ours = encoded(row, tokenizer, "together")
        assert list(ours.ids) == theirs["ids"]
        assert min(ours.first_target, len(ours.ids)) == theirs["masked"]


@pytest.mark.parametrize(("name", "differing"), [("micro", 0), ("smollm2", 0), ("mistral_7b_v0.1", 40), ("llama3", 9)])
def test_apart_has_the_prompt_s_own_tokens(name: str, differing: int) -> None:
    """What the default does otherwise: in a prompt nothing, in a response the first token where a text begins anew."""
    tokenizer = TOKENIZERS[name]()
    others = 0
    for row in ROWS:
        ours, together = (encoded(row, tokenizer, choice) for choice in ("apart", "together"))
        first = ours.first_target
        assert list(ours.ids[:first]) == prompt_ids([alpaca(row["query"])], tokenizer, "tokenizer")[0][:LENGTH]
        others += ours.ids[first : first + 1] != together.ids[first : first + 1]
    assert others == differing


@pytest.mark.parametrize(("choice", "expected"), [("tokenizer", []), ("always", [1]), ("never", [])])
def test_the_first_token_is_the_tokenizer_s_choice_unless_told_otherwise(choice: Any, expected: list[int]) -> None:
    tokenizer = shipped("micro")
    plain = tokenizer("How many?", add_special_tokens=False)["input_ids"]
    assert prompt_ids(["How many?"], tokenizer, choice) == [[*expected, *plain]]


def test_a_tokenizer_that_begins_texts_itself_is_followed() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = shipped("micro")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    plain = tokenizer("How many?", add_special_tokens=False)["input_ids"]
    texts = ["How many?", "<bos>How many?"]  # a chat template's text begins by itself
    found = prompt_ids(texts, tokenizer, "tokenizer")
    assert found == [[1, *plain], [1, *plain]], "and no end of the sequence before an answer"
    assert prompt_ids(["How many?"], tokenizer, "never") == [plain]
