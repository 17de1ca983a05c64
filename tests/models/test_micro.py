"""The shipped micro model: it loads offline, is small, and encodes any text, the embedded tasks in few tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import sdsbench
from sdsbench.synthetic.metamath import problem_rows
from sdsbench.tasks.prompts import alpaca

FOLDER = Path(sdsbench.__file__).parent / "synthetic" / "micro"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True, dtype=torch.float32).eval()


def test_model_is_small_and_every_projection_takes_rank_32(model) -> None:
    assert 1_000_000 <= sum(weight.numel() for weight in model.parameters()) <= 2_000_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 8 * 2**20
    projections = [layer for layer in model.model.modules() if isinstance(layer, torch.nn.Linear)]
    assert len(projections) == 7 * model.config.num_hidden_layers
    assert min(min(layer.weight.shape) for layer in projections) > 32
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_folder_holds_no_pickle_and_no_code() -> None:
    assert {path.suffix for path in FOLDER.iterdir()} == {".json", ".safetensors", ".md"}


def test_model_and_tokenizer_agree(model, tokenizer) -> None:
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    assert tokenizer.bos_token_id == model.config.bos_token_id
    assert tokenizer.eos_token_id == model.config.eos_token_id
    assert tokenizer.model_max_length == model.config.max_position_embeddings


@settings(max_examples=200)
@given(st.text(max_size=80))
def test_decoding_restores_any_text(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    # A text that spells a special token is encoded as that token; it still decodes to the same text.
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize(
    "text", ["a  b\n\n\tc \r\n", "naïve 中文 😀", "12,345 <<3*4=12>>12", "x .  y ' s", "### Response:"]
)
def test_decoding_restores_whitespace_unicode_and_markup(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_each_digit_is_one_token(tokenizer) -> None:
    digits = [tokenizer(str(digit)).input_ids for digit in range(10)]
    assert all(len(ids) == 1 for ids in digits)
    assert tokenizer("9075").input_ids == [digits[digit][0] for digit in (9, 0, 7, 5)]


def test_embedded_samples_have_few_tokens(tokenizer) -> None:
    texts = [alpaca(row["query"]) + " " + row["response"] for row in problem_rows("train", 200, seed=0)]
    lengths = [len(ids) for ids in tokenizer(texts).input_ids]
    assert max(lengths) <= 160 and sum(lengths) / len(lengths) <= 90


def test_model_has_learned_sums_but_not_the_answer_format(model, tokenizer) -> None:
    """The model is pretrained: it completes sums. It is not trained for the task: it writes no answer mark."""
    sums = {
        "7 + 8 = 15; 12 + 30 =": 42,
        "3 * 9 = 27; 6 * 7 =": 42,
        "20 - 8 = 12; 50 - 8 =": 42,
        "8 / 2 = 4; 84 / 2 =": 42,
    }
    correct = 0
    for text, result in sums.items():
        answer = _continuation(model, tokenizer, text + " ", 3)
        correct += answer.startswith(str(result))
    assert correct >= 3
    for row in problem_rows("test", 5, seed=0):
        assert "The answer is" not in _continuation(model, tokenizer, alpaca(row["query"]), 60)


def _continuation(model, tokenizer, text: str, count: int) -> str:
    ids = tokenizer(text, return_tensors="pt").input_ids
    generated = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return tokenizer.decode(generated[0, ids.shape[1] :])
