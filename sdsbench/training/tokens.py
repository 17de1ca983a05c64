"""Tokenize prompts and responses, with the same prompt tokens in training and in evaluation."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sdsbench.core.errors import Unavailable
from sdsbench.tasks.base import BeginToken, Conversation, TextExample, TextTaskConfig

TEXTS_PER_CALL = 1024
"""Number of texts tokenized in one call, since a call costs more than tokenizing a short text."""

TEMPLATE_SECONDS = 10.0
"""Limit of CPU seconds for applying a chat template to one conversation, which normally takes below a millisecond."""


@dataclass(frozen=True)
class EncodedText:
    """Token ids of one example; the loss covers tokens from position `first_target` on."""

    ids: tuple[int, ...]
    first_target: int
    cut: bool = False  # truncated at train.max_length

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Tokens that carry loss (the first token of a sequence cannot: nothing predicts it)."""
        return len(self.ids) - max(self.first_target, 1)


def encode(
    examples: Iterable[TextExample], tokenizer: Any, max_length: int, config: TextTaskConfig
) -> Iterator[EncodedText]:
    """Tokenize examples, append the end-of-sequence token and truncate to `max_length` tokens on the right.

    `task.tokenize=apart` tokenizes prompt and response separately, so that the prompt has the same tokens as in
    evaluation. `together`, as in LoRA-SB, MetaMath and LLM-Adapters, tokenizes them as one text, where a token may span
    the border; the prompt then counts as many tokens as it has alone.
    """
    ahead = iter(examples)
    while some := list(islice(ahead, TEXTS_PER_CALL)):
        texts = [prompt_text(example.prompt, tokenizer) for example in some]
        prompts = prompt_ids(texts, tokenizer, config.begin_token)
        if config.tokenize == "together":
            whole = [text + example.response + tokenizer.eos_token for text, example in zip(texts, some, strict=True)]
            rows = prompt_ids(whole, tokenizer, config.begin_token)
        else:
            responses = plain_ids([example.response for example in some], tokenizer)
            ends = zip(prompts, responses, strict=True)
            rows = [[*prompt, *response, tokenizer.eos_token_id] for prompt, response in ends]
        for prompt, ids in zip(prompts, rows, strict=True):
            first_target = 0 if config.loss_on == "sequence" else len(prompt)
            yield EncodedText(tuple(ids[:max_length]), first_target, cut=len(ids) > max_length)


def prompt_text(prompt: str | Conversation, tokenizer: Any) -> str:
    """A prompt as text; a conversation is formatted by the tokenizer's chat template up to where the answer begins.

    Raises Unavailable if the tokenizer has no chat template, or the template rejects the roles or does not terminate.
    """
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise Unavailable(
            "task.chat=True: accepted: false, or a model whose tokenizer has a chat template; this one has none"
        )
    messages = [{"role": role, "content": content} for role, content in prompt.messages]
    try:
        with _computing_at_most(TEMPLATE_SECONDS):
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # errors of jinja and of the template itself, of any type
        roles = ", ".join(role for role, _ in prompt.messages)
        raise Unavailable(f"task.chat=True: the tokenizer's template refuses messages of {roles}: {error}") from None


@contextmanager
def _computing_at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block once this process has used that many CPU seconds.

    Templates come with models and may loop forever. Works in the main thread only, which is where runs are tokenized.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"it computes for more than {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def prompt_ids(prompts: Sequence[str], tokenizer: Any, begin_token: BeginToken) -> list[list[int]]:
    """Prompt tokens in training and in evaluation, with the begin token unless a chat template already wrote it."""
    beginning = _beginning(tokenizer, begin_token)
    own = [bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token) for prompt in prompts]
    rows = zip(own, plain_ids(prompts, tokenizer), strict=True)
    return [ids if brings_its_own else [*beginning, *ids] for brings_its_own, ids in rows]


def plain_ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The tokens of each text, without special tokens."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), TEXTS_PER_CALL):
        ids += tokenizer(list(texts[start : start + TEXTS_PER_CALL]), add_special_tokens=False)["input_ids"]
    return ids


def _beginning(tokenizer: Any, begin_token: BeginToken) -> list[int]:
    """Tokens to put before a text: none, the beginning-of-sequence token if there is one, or the tokenizer's default.

    A token that also marks the end of a sequence is never used, since it would end the text.
    """
    if begin_token == "never":
        return []
    begin = tokenizer.bos_token_id
    if begin_token == "always":
        return [] if begin is None or begin == tokenizer.eos_token_id else [begin]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    starts = (start for start in range(len(whole)) if whole[start : start + len(plain)] == plain)
    return whole[: next(starts)]
