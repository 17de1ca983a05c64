"""Generation with the model `micro`: equal answers at every batch size and with static steps, and as transformers'."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sdsbench.core.record import Score
from sdsbench.evaluation import decoding, key_value_cache, static_step
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.evaluation.static_step import StaticStep
from sdsbench.training.tokens import prompt_ids
from tests.models.folders import PACKED_DECODERS, PADDED_DECODERS, random_model

PROMPTS = [f"Tom has {i} apples. He buys {'many ' * (i % 4)}more. How many apples does he have?" for i in range(9)]


def requests(stop: tuple[str, ...] = (), new_tokens: int = 24, beams: int = 1) -> list[Request]:
    return [Request(prompt, new_tokens, stop, beams) for prompt in PROMPTS]


def test_answers_do_not_depend_on_the_batch_size(micro) -> None:
    answers = [
        Generator(micro.model, micro.tokenizer, size, begin_token="always").answer(requests()) for size in (1, 7, 32)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) > 1


@torch.inference_mode()
def test_answers_equal_greedy_decoding_of_transformers(micro) -> None:
    found = Generator(micro.model, micro.tokenizer, 4).answer(requests())
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = torch.tensor(prompt_ids([prompt], micro.tokenizer, "tokenizer"), device=micro.model.device)
        generated = micro.model.generate(
            ids, max_new_tokens=24, do_sample=False, pad_token_id=micro.tokenizer.pad_token_id,
            attention_mask=torch.ones_like(ids),
        )  # fmt: skip
        assert answer == micro.tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)


def test_answer_ends_before_the_stop_text_and_saves_tokens(micro) -> None:
    unstopped = Generator(micro.model, micro.tokenizer, 4).answer(requests())
    stop = unstopped[0][len(unstopped[0]) // 2 :][:3]
    generator = Generator(micro.model, micro.tokenizer, 4)
    stopped = generator.answer(requests((stop,)))
    for long, short in zip(unstopped, stopped, strict=True):
        assert short == (long[: long.index(stop)] if stop in long else long)
    ids = prompt_ids(PROMPTS, micro.tokenizer, "tokenizer")
    tokens = generator.continuations(ids, requests((stop,)))
    assert sum(map(len, tokens)) < sum(map(len, generator.continuations(ids, requests())))


@pytest.mark.parametrize("kind", ["micro", "spaces between tokens"])
def test_answer_ends_at_the_token_that_completes_a_stop_text(micro, kind: str) -> None:
    """Compared with decoding after every token; tokens may end inside of characters and stop texts begin anywhere."""
    tokenizer = micro.tokenizer if kind == "micro" else SpacingTokenizer()
    generator = Generator(micro.model, micro.tokenizer, 1)
    generator.tokenizer, rng, ended = tokenizer, random.Random(0), set()
    for _ in range(40):
        ids = [rng.randrange(3, len(micro.tokenizer)) for _ in range(20)]
        ids += tokenizer("größe — €").input_ids
        text = tokenizer.decode(ids)
        start = rng.randrange(len(text) // 2, len(text))
        request = Request("", 100, ("never\x00", text[start : start + rng.randrange(1, 4)]))
        for length in range(1, len(ids) + 1):
            tail = tokenizer.decode(ids[:length][-24:], skip_special_tokens=True)
            completed = any(stop in tail for stop in request.stop)
            assert generator._ended(ids[:length], request) == (completed or ids[length - 1] in generator.ends)
            if completed:
                ended.add(length)
                break
    assert len(ended) > 10


class SpacingTokenizer:
    """A tokenizer whose tokens are letters, and which puts a space between tokens when it decodes."""

    def __call__(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[ord(letter) % 26 for letter in text])

    def decode(self, ids: list[int], **_: object) -> str:
        return " ".join(chr(97 + number % 26) for number in ids)


def test_beam_search_answers_equal_those_of_single_prompts(micro) -> None:
    answers = Generator(micro.model, micro.tokenizer, 3).answer(requests(new_tokens=6, beams=2))
    alone = [
        Generator(micro.model, micro.tokenizer, 1).answer([request])[0] for request in requests(new_tokens=6, beams=2)
    ]
    assert answers == alone


@pytest.mark.parametrize("beams", [1, 2])
def test_exception_of_the_progress_function_ends_generation_within_a_token(micro, beams: int) -> None:
    """So that Ctrl-C need not wait for a batch of long answers."""
    calls: list[int] = []

    def progress(finished: int) -> None:
        calls.append(finished)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Generator(micro.model, micro.tokenizer, 8, progress).answer(requests((), 40, beams))
    assert calls == [0, 0, 0]


UNEQUAL = [Request(prompt, 4 + 9 * (number % 4), ()) for number, prompt in enumerate(PROMPTS * 3)]


@pytest.mark.parametrize("slack", [1, 64])
@pytest.mark.parametrize("size", [2, 5, 16])
def test_waiting_prompts_replace_finished_rows(micro, size: int, slack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch stays full while prompts wait; answers equal those of single prompts, also where columns run out."""
    monkeypatch.setattr(decoding, "SLACK", slack)
    seen: list[tuple[int, int]] = []
    original = decoding.last_logits

    def recording_logits(model, inputs, mask, positions, cache):
        seen.append(tuple(inputs.shape))
        assert mask.shape == (len(inputs), cache.get_seq_length() + inputs.shape[1])
        return original(model, inputs, mask, positions, cache)

    alone = [Generator(micro.model, micro.tokenizer, 1).answers([request])[0] for request in UNEQUAL]
    monkeypatch.setattr(decoding, "last_logits", recording_logits)
    assert Generator(micro.model, micro.tokenizer, size).answers(UNEQUAL) == alone
    steps = [rows for rows, columns in seen if columns == 1]
    last_prompt = max(number for number, (_, columns) in enumerate(seen) if columns > 1)
    full = [rows for rows, columns in seen[:last_prompt] if columns == 1]
    assert set(full) == {size}, "a batch does not shrink while prompts wait"
    assert sum(steps) < 1.5 * sum(request.max_new_tokens for request in UNEQUAL) + size * 40


def test_model_with_sliding_windows_finishes_a_batch_before_the_next(micro, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows cannot be replaced, since layers with a window keep other columns."""
    facts = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(
        "gemma2", **facts, head_dim=8, num_hidden_layers=2, vocab_size=len(micro.tokenizer), sliding_window=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().to(micro.model.device)
    alone = [Generator(model, micro.tokenizer, 1).answers([request])[0] for request in UNEQUAL[:8]]
    monkeypatch.setattr(decoding.Decoding, "replace", lambda *_: pytest.fail("rows of a window were replaced"))
    assert Generator(model, micro.tokenizer, 3).answers(UNEQUAL[:8]) == alone


@pytest.fixture
def static_steps(monkeypatch: pytest.MonkeyPatch) -> list[StaticStep]:
    """The StaticStep objects that a test creates; buckets are small, so that an answer uses several."""
    created: list[StaticStep] = []
    original = StaticStep.__init__

    def recording_init(self: StaticStep, *arguments: object) -> None:
        original(self, *arguments)
        created.append(self)

    monkeypatch.setattr(StaticStep, "__init__", recording_init)
    monkeypatch.setattr(static_step, "BUCKET", 4)
    return created


@pytest.mark.parametrize("slack", [1, 64])
@pytest.mark.parametrize("size", [2, 5, 32])
def test_static_steps_give_the_answers_of_plain_steps(
    micro, size: int, slack: int, static_steps: list[StaticStep], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished rows are replaced, columns dropped and buckets changed; on CUDA the steps are captured."""
    monkeypatch.setattr(decoding, "SLACK", slack)
    alone = [Generator(micro.model, micro.tokenizer, 1, steps="plain").answers([r])[0] for r in UNEQUAL]
    seen: set[tuple[int, int]] = set()
    original = decoding.last_logits

    def recording_logits(model, inputs, mask, positions, cache):
        if mask.ndim == 4:
            seen.add((len(inputs), mask.shape[-1]))
        return original(model, inputs, mask, positions, cache)

    monkeypatch.setattr(decoding, "last_logits", recording_logits)
    assert Generator(micro.model, micro.tokenizer, size, steps="captured").answers(UNEQUAL) == alone
    assert {rows for rows, _ in seen} == {min(size, len(UNEQUAL))}
    assert len(seen) > 1, "several buckets"
    assert not lines
    (static,) = static_steps
    assert bool(static._graphs) == (micro.model.device.type == "cuda")


@pytest.mark.parametrize("kind", ["qwen2", "gemma3_text", "granite"])
def test_static_steps_of_other_architectures_give_equal_tokens(
    kind: str, micro, static_steps: list[StaticStep], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, in fp32, they equal those of plain steps. On CUDA, in bf16, replayed graphs equal static steps without
    graphs; plain steps round otherwise there, since static steps sum over more columns."""
    monkeypatch.setattr(decoding, "SLACK", 1)  # columns run out several times
    facts = {**PACKED_DECODERS, **PADDED_DECODERS}[kind]
    model = random_model(kind, {**facts, "sliding_window": 4096} if "sliding_window" in facts else facts)
    on_cuda = micro.model.device.type == "cuda"
    model.to(micro.model.device, torch.bfloat16 if on_cuda else torch.float32)
    ids = prompt_ids([request.prompt for request in UNEQUAL], micro.tokenizer, "tokenizer")
    captured = Generator(model, micro.tokenizer, 5, steps="captured").continuations(ids, UNEQUAL)
    if on_cuda:
        expected = Generator(model, micro.tokenizer, 5, steps="static").continuations(ids, UNEQUAL)
        assert len(static_steps[0]._graphs) > 2
        assert not static_steps[1]._graphs
    else:
        expected = Generator(model, micro.tokenizer, 1, steps="plain").continuations(ids, UNEQUAL)
    assert captured == expected
    assert not lines


@pytest.mark.parametrize("kind", ["falcon", "gemma3_text"])
def test_models_without_static_steps_use_plain_steps_and_print_the_reason_once(
    kind: str, micro, static_steps: list[StaticStep], lines: list[str]
) -> None:
    """Falcon computes distances from a mask of two dimensions, and layers with a short window place their columns."""
    model = random_model(kind, {**PACKED_DECODERS, **PADDED_DECODERS}[kind]).to(micro.model.device)
    plain = Generator(model, micro.tokenizer, 4, steps="plain").answers(UNEQUAL[:9])
    for _ in range(2):
        assert Generator(model, micro.tokenizer, 4, steps="captured").answers(UNEQUAL[:9]) == plain
    (line,) = lines
    assert line.startswith("answers are decoded kernel by kernel (slower, the same answers): ")
    assert ("short window" in line) == (not static_steps) == (kind == "gemma3_text")


def test_static_steps_with_wrong_logits_are_not_used(micro, static_steps, lines, monkeypatch) -> None:
    """As for a model that interprets the mask otherwise without raising an error."""
    plain = Generator(micro.model, micro.tokenizer, 5, steps="plain").answers(UNEQUAL)
    monkeypatch.setattr(key_value_cache.StaticLayer, "update", lambda self, keys, values, *_: (keys * 0, values))
    original = decoding.last_logits

    def logits_without_mask(model, inputs, mask, positions, cache):
        return original(model, inputs, mask[..., -1:].clone() if mask.ndim == 4 else mask, positions, cache)

    monkeypatch.setattr(decoding, "last_logits", logits_without_mask)
    assert Generator(micro.model, micro.tokenizer, 5, steps="captured").answers(UNEQUAL) == plain
    (line,) = lines
    assert "logits of a static step are off by" in line


@pytest.mark.parametrize("capturing", [False, True])
def test_failed_static_step_is_repeated_as_a_plain_step(
    micro, capturing: bool, static_steps, lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA the step reads a value back, which no graph can contain."""
    if capturing and micro.model.device.type == "cpu":
        pytest.skip("nothing is captured on a CPU")
    plain = Generator(micro.model, micro.tokenizer, 5, steps="plain").answers(UNEQUAL)
    calls, original = [0], decoding.last_logits

    def failing_logits(model, inputs, mask, positions, cache):
        logits = original(model, inputs, mask, positions, cache)
        calls[0] += mask.ndim == 4
        if mask.ndim == 4 and calls[0] > 6:
            if logits.device.type == "cpu":
                raise RuntimeError("a kernel failed")
            if torch.cuda.is_current_stream_capturing() == capturing:
                float(logits.sum())
        return logits

    monkeypatch.setattr(decoding, "last_logits", failing_logits)
    assert Generator(micro.model, micro.tokenizer, 5, steps="captured").answers(UNEQUAL) == plain
    (line,) = lines
    assert line.startswith("answers are decoded kernel by kernel (slower, the same answers): ")
    assert len(static_steps) == 1
    if micro.model.device.type == "cuda":
        assert torch.cuda.current_stream() == torch.cuda.default_stream(), "not the stream of the capture"
        torch.rand(1, device=micro.model.device)


def test_prompts_beyond_the_context_are_cut_on_the_left_and_counted(micro, monkeypatch) -> None:
    """The answer is that to the end of the prompt, which holds the question."""
    monkeypatch.setattr(micro.model.config, "max_position_embeddings", 40)
    long = Request("Once upon a time. " * 30 + PROMPTS[0], 24, ())
    generator = Generator(micro.model, micro.tokenizer, 4)
    (answer,) = generator.answers([long])
    ids = prompt_ids([long.prompt], micro.tokenizer, "tokenizer")[0]
    assert answer.prompt_cut == len(ids) - 16
    (tokens,) = generator.continuations([ids[-16:]], [long])
    assert answer.text == generator._answer(tokens, long).text
    assert Generator(micro.model, micro.tokenizer, 4).answers([Request("Hi", 24, ())])[0].prompt_cut == 0
    score = Score(evaluation="gsm8k", version=2, scorer="paper", stage="trained", value=0.0, n=9, prompts_cut=2)
    assert score.note == "2 prompts cut"
