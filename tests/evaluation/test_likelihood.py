"""Log-likelihoods of continuations equal those of single sequences, and each prompt is computed once."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from sdsbench.core.errors import Unavailable
from sdsbench.evaluation.likelihood import continuation_log_likelihoods

PROMPTS = ("Tom has 3 apples and", "A long prompt with more words than the other one, so that lengths differ:")
CHOICES = (" buys 2 more apples.", " eats", " sells 10 of them to Ann.")
PAIRS = [(prompt, choice) for prompt in PROMPTS for choice in CHOICES]


def small_decoder(config_class, **keys):
    """A random decoder with micro's vocabulary and features that micro lacks (`keys` of its configuration)."""
    config = config_class(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=1024, **keys,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data.mul_(8 if parameter.ndim == 2 else 1)
    return model.eval()


def reference(model, tokenizer, prompt: str, continuation: str) -> tuple[float, bool]:
    """(log-likelihood, whether greedy) from one unpadded sequence and the model's own forward pass."""
    head = tokenizer(prompt)["input_ids"]
    tail = tokenizer(continuation, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].float()
    gold = torch.tensor(tail)[:, None]
    return float(logits.log_softmax(-1).gather(1, gold).sum()), bool((logits.argmax(-1, keepdim=True) == gold).all())


@pytest.mark.parametrize("padded", [False, True])
def test_nan_logits_raise_instead_of_choosing_an_answer(cpu_micro, padded: bool) -> None:
    from sdsbench.core.errors import TrainingFailed

    broken = copy.deepcopy(cpu_micro.model)
    next(iter(broken.parameters())).data.fill_(math.nan)
    with pytest.raises(TrainingFailed, match=r"logits of the model: nan: not finite\. Try a lower train\.lr"):
        continuation_log_likelihoods(broken, cpu_micro.tokenizer, PAIRS, 3, padded=padded)


@pytest.mark.parametrize("batch_size", (1, 3, 7, 32))
def test_log_likelihoods_equal_those_of_single_sequences(cpu_micro, batch_size: int) -> None:
    found = continuation_log_likelihoods(cpu_micro.model, cpu_micro.tokenizer, PAIRS, batch_size)
    for pair, (value, greedy) in zip(PAIRS, found, strict=True):
        expected, expected_greedy = reference(cpu_micro.model, cpu_micro.tokenizer, *pair)
        assert math.isclose(value, expected, rel_tol=1e-5)
        assert greedy == expected_greedy


@pytest.mark.parametrize(
    "model",
    (
        small_decoder(MistralConfig, sliding_window=6),
        small_decoder(Gemma2Config, sliding_window=6, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    ),
    ids=("sliding window", "soft caps"),
)
def test_log_likelihoods_with_sliding_windows_and_soft_caps(cpu_micro, model) -> None:
    model.set_attn_implementation("eager")
    found = continuation_log_likelihoods(model, cpu_micro.tokenizer, PAIRS, 32)
    expected = [reference(model, cpu_micro.tokenizer, *pair) for pair in PAIRS]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], rel=1e-5)


def test_prompt_is_computed_once_for_all_continuations(cpu_micro) -> None:
    prompt = PROMPTS[1] * 4

    def flops(pairs: list[tuple[str, str]]) -> int:
        with FlopCounterMode(display=False) as counter:
            continuation_log_likelihoods(cpu_micro.model, cpu_micro.tokenizer, pairs, 32)
        return counter.get_total_flops()

    once = flops([(prompt, " 1")])
    assert flops([(prompt, f" {number}") for number in range(4)]) < 1.5 * once


@pytest.mark.parametrize("padded", [False, True])
def test_empty_prompt_is_the_token_for_the_beginning_of_a_text(cpu_micro, padded: bool) -> None:
    """lm-eval's choice, for tasks without a prompt (blimp); the end token stands in where there is no other."""
    begin = copy.deepcopy(cpu_micro.tokenizer)
    begin.bos_token, begin.eos_token = "a", "b"
    for missing in ("", "bos_token"):
        if missing:
            begin.bos_token = None
        pairs = [("", choice) for choice in CHOICES] + PAIRS[:1]
        found = continuation_log_likelihoods(cpu_micro.model, begin, pairs, 4, begin_token="never", padded=padded)
        prompt = begin.eos_token if missing else begin.bos_token
        for (_, choice), (value, greedy) in zip(pairs[:3], found, strict=False):
            ids = [begin(text, add_special_tokens=False)["input_ids"] for text in (prompt, choice)]
            assert len(ids[0]) == 1
            with torch.no_grad():
                logits = cpu_micro.model(torch.tensor([[*ids[0], *ids[1]]])).logits[0, :-1].float()
            gold = torch.tensor(ids[1])[:, None]
            assert value == pytest.approx(float(logits.log_softmax(-1).gather(1, gold).sum()), rel=1e-5)
            assert greedy == bool((logits.argmax(-1, keepdim=True) == gold).all())
    begin.eos_token = None
    with pytest.raises(Unavailable, match=r"an empty prompt: accepted: .* this one has neither"):
        continuation_log_likelihoods(cpu_micro.model, begin, pairs, 4, begin_token="never", padded=padded)
