"""Generation with micro: the same answers at every batch size, and transformers' own greedy answers."""

from __future__ import annotations

import pytest
import torch

from sdsbench.evaluation.generation import Generator, Request
from sdsbench.models.load import load
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.training.tokens import prompt_ids

PROMPTS = [f"Tom has {i} apples. He buys {'many ' * (i % 4)}more. How many apples does he have?" for i in range(9)]


@pytest.fixture(scope="module")
def micro():
    return load(compose_run(["model=micro", "method=lora", "task=gsm8k"]).model, torch.float32)


def requests(stop: tuple[str, ...] = (), new_tokens: int = 24, beams: int = 1) -> list[Request]:
    return [Request(prompt, new_tokens, stop, beams) for prompt in PROMPTS]


def test_answers_do_not_depend_on_the_batch(micro) -> None:
    answers = [
        Generator(micro.model, micro.tokenizer, size, begin_token="always").answer(requests()) for size in (1, 7, 32)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) > 1


@torch.inference_mode()
def test_equal_to_transformers_greedy(micro) -> None:
    found = Generator(micro.model, micro.tokenizer, 4).answer(requests())
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt_ids(prompt, micro.tokenizer, "tokenizer")])
        made = micro.model.generate(
            ids, max_new_tokens=24, do_sample=False, pad_token_id=micro.tokenizer.pad_token_id,
            attention_mask=torch.ones_like(ids),
        )  # fmt: skip
        assert answer == micro.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def test_stops_at_the_stop_text(micro) -> None:
    free = Generator(micro.model, micro.tokenizer, 4).answer(requests())
    stop = free[0][len(free[0]) // 2 :][:3]
    generator = Generator(micro.model, micro.tokenizer, 4)
    stopped = generator.answer(requests((stop,)))
    for long, short in zip(free, stopped, strict=True):
        assert short == (long[: long.index(stop)] if stop in long else long)
    ids = [prompt_ids(prompt, micro.tokenizer, "tokenizer") for prompt in PROMPTS]
    tokens = generator.continuations(ids, requests((stop,)))
    assert sum(map(len, tokens)) < sum(map(len, generator.continuations(ids, requests())))


def test_beam_search_answers_in_order(micro) -> None:
    answers = Generator(micro.model, micro.tokenizer, 3).answer(requests(new_tokens=6, beams=2))
    alone = [Generator(micro.model, micro.tokenizer, 1).answer([request])[0] for request in requests("", 6, 2)]
    assert answers == alone


@pytest.mark.parametrize("beams", [1, 2])
def test_a_look_after_every_token_may_end_it(micro, beams: int) -> None:
    """Ctrl-C is obeyed within a token, not within a batch of long answers."""
    looks: list[int] = []

    def look(units: int) -> None:
        looks.append(units)
        if len(looks) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Generator(micro.model, micro.tokenizer, 8, look).answer(requests((), 40, beams))
    assert looks == [0, 0, 0]
