"""A beginning that all prompts share is computed once, and the answers stay those of single prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdsbench.evaluation import decoding, generation
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.evaluation.shared_prefix import SharedPrefix, common_length, computed_prefix
from sdsbench.training.tokens import prompt_ids
from tests.models.folders import PACKED_DECODERS, PADDED_DECODERS, STATE_SPACES, random_model

TEMPLATE = "Below is an instruction that describes a task. Write a response that completes it.\n\nQuestion: "
QUESTIONS = [f"Tom has {i} apples. He buys {'many ' * (i % 4)}more. How many apples does he have?" for i in range(18)]
REQUESTS = [Request(TEMPLATE + text, 4 + 9 * (number % 4), ()) for number, text in enumerate(QUESTIONS)]


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, new columns) of each forward pass through `last_logits`."""
    seen: list[tuple[int, int]] = []
    original = decoding.last_logits

    def recording_logits(model, inputs, mask, positions, cache):
        seen.append(tuple(inputs.shape))
        return original(model, inputs, mask, positions, cache)

    monkeypatch.setattr(decoding, "last_logits", recording_logits)
    return seen


def test_common_length_leaves_a_token_of_every_prompt() -> None:
    assert common_length([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3]]) == 2
    assert common_length([[1, 2, 3, 4], [1, 2, 9, 4]]) == 2
    assert common_length([[1, 2], [1, 2]]) == 1
    assert common_length([[7], [8]]) == common_length([]) == 0


@pytest.mark.parametrize("steps", ["plain", "captured"])
@pytest.mark.parametrize("slack", [1, 64])
@pytest.mark.parametrize("size", [2, 5, 32])
def test_answers_are_those_of_single_prompts(
    micro, size: int, slack: int, steps: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are replaced and columns dropped; passes of prompts hold the tokens after the shared ones alone."""
    monkeypatch.setattr(decoding, "SLACK", slack)
    alone = [Generator(micro.model, micro.tokenizer, 1, steps="plain").answers([one])[0] for one in REQUESTS]
    seen = recorded(monkeypatch)
    assert Generator(micro.model, micro.tokenizer, size, steps=steps).answers(REQUESTS) == alone  # type: ignore[arg-type]
    assert len({answer.text for answer in alone}) > 3
    ids = prompt_ids([request.prompt for request in REQUESTS], micro.tokenizer, "tokenizer")
    shared, longest = common_length(ids), max(map(len, ids))
    assert shared > 15
    assert seen[0] == (2, longest), "the check: two prompts without the shared beginning"
    assert seen[1] == (2, longest - shared), "and after it"
    assert all(columns <= longest - shared for _, columns in seen[2:])
    assert not lines


@pytest.mark.parametrize("kind", sorted({**PACKED_DECODERS, **PADDED_DECODERS}.keys() - STATE_SPACES))
def test_answers_of_every_architecture_are_those_of_single_prompts(kind: str, micro, lines: list[str]) -> None:
    """Whether it can share a beginning or not: some count distances in columns, some keep a short window."""
    model = random_model(kind, {**PACKED_DECODERS, **PADDED_DECODERS}[kind]).to(micro.model.device, torch.float32)
    ids = prompt_ids([request.prompt for request in REQUESTS], micro.tokenizer, "tokenizer")
    one = Generator(model, micro.tokenizer, 1, steps="plain")
    alone = [one.continuations([tokens], [request])[0] for tokens, request in zip(ids, REQUESTS, strict=True)]
    assert Generator(model, micro.tokenizer, 5, steps="plain").continuations(ids, REQUESTS) == alone


def test_few_prompts_and_prompts_of_other_beginnings_share_nothing(micro, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "computed_prefix", lambda *_: pytest.fail("computed"))
    generator = Generator(micro.model, micro.tokenizer, 4, steps="plain")
    generator.answers([replace(one, max_new_tokens=1) for one in REQUESTS[: generation.MANY - 1]])
    generator.answers(
        [replace(one, prompt=question, max_new_tokens=1) for one, question in zip(REQUESTS, QUESTIONS, strict=True)]
    )


def wrong(model, tokens) -> SharedPrefix:
    prefix = computed_prefix(model, tokens)
    return SharedPrefix(prefix.length, [(keys * 1.1, values) for keys, values in prefix.states])


def impossible(model, tokens) -> SharedPrefix:
    raise TypeError("no such cache")


@pytest.mark.parametrize(
    ("kind", "reason"), [(wrong, "logits after a shared one are off by "), (impossible, "TypeErr")]
)
def test_a_beginning_that_changes_logits_is_not_shared(
    micro, kind, reason: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a layer that mixes tokens, whose output depends on what is computed together."""
    expected = Generator(micro.model, micro.tokenizer, 4, steps="plain").answers(REQUESTS)
    monkeypatch.setattr(generation, "computed_prefix", kind)
    for _ in range(2):
        assert Generator(micro.model, micro.tokenizer, 4, steps="plain").answers(REQUESTS) == expected
    (line,) = lines
    assert line.startswith("the beginning that all prompts share is computed for each of them (slower, the same")
    assert reason in line
