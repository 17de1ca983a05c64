"""Greedy and beam-search generation with a model in memory; answers do not depend on the batch size.

Prompts are answered longest first, so that a batch too large for memory fails at once. They are padded on the left; the
padding is masked, and positions count from the first token that is not padding. Waiting prompts replace finished rows
(decoding.py), so that a batch stays full until the prompts run out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from sdsbench.core.errors import Unavailable
from sdsbench.core.texts import short_message
from sdsbench.evaluation.decoding import (
    SLACK,
    Decoding,
    last_logits,
    log_once,
    logit_difference,
    logit_tolerance,
    padded,
    positions_of,
    read,
)
from sdsbench.evaluation.finite import finite
from sdsbench.evaluation.key_value_cache import reserved_cache, reserves_all
from sdsbench.evaluation.shared_prefix import NO_PREFIX, SharedPrefix, common_length, computed_prefix
from sdsbench.evaluation.static_step import Steps, default_steps
from sdsbench.tasks.base import BeginToken
from sdsbench.training.tokens import EncodedText, prompt_ids

LEAST = 8  # tokens of a shared beginning for which a pass of its own pays
MANY = 8  # prompts likewise
REFILL = 8  # refill a batch when 1/8 of its rows is free, since every refill makes the other rows wait


@dataclass(frozen=True)
class Request:
    """One prompt with the settings of its generation: token limit, stop texts, beams (1: greedy)."""

    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...]
    beams: int = 1


@dataclass(frozen=True)
class GeneratedAnswer:
    """A generated text up to its stop text; `truncated` if it reached max_new_tokens before one.

    `prompt_cut`: number of tokens removed from the start of the prompt to make prompt and answer fit the context.
    """

    text: str
    truncated: bool
    prompt_cut: int = 0


class Generator:
    """Generates answers with a decoder. After every token it calls `progress(newly finished rows)`, which may raise.

    `steps`: how decoding steps run (static_step.py); None: the fastest way on the model's device.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int,
        progress: Callable[[int], None] = lambda _: None,
        begin_token: BeginToken = "tokenizer",
        steps: Steps | None = None,
    ) -> None:
        self.begin_token: BeginToken = begin_token
        self.model, self.tokenizer, self.batch_size, self.progress = model, tokenizer, batch_size, progress
        self.device = next(model.parameters()).device
        self.steps: Steps = steps or default_steps(self.device)
        self.ends = _end_tokens(model, tokenizer)
        self._texts: dict[int, str] = {}  # token id -> its text

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """The generated texts in the order of the requests, each up to its stop text."""
        return [answer.text for answer in self.answers(requests)]

    def answers(self, requests: Sequence[Request]) -> list[GeneratedAnswer]:
        """Generated answers in the order of the requests, with the marks of truncated answers and shortened prompts."""
        prompts = prompt_ids([request.prompt for request in requests], self.tokenizer, self.begin_token)
        cuts = [self._excess_tokens(ids, request) for ids, request in zip(prompts, requests, strict=True)]
        made = self.continuations([ids[cut:] for ids, cut in zip(prompts, cuts, strict=True)], requests)
        answers = (self._answer(tokens, request) for tokens, request in zip(made, requests, strict=True))
        return [replace(answer, prompt_cut=cut) for answer, cut in zip(answers, cuts, strict=True)]

    def _excess_tokens(self, prompt: Sequence[int], request: Request) -> int:
        """Number of prompt tokens to remove so that prompt and longest answer fit the context; at least one stays."""
        context = getattr(self.model.config, "max_position_embeddings", None)
        return 0 if context is None else max(0, len(prompt) - max(1, context - request.max_new_tokens))

    @torch.inference_mode()
    def continuations(self, prompts: Sequence[Sequence[int]], requests: Sequence[Request]) -> list[list[int]]:
        """The token ids generated for each tokenized prompt."""
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        made: list[list[int]] = [[] for _ in prompts]
        if requests and requests[0].beams > 1:
            self._beams(order, prompts, requests, made)
        else:
            waiting = deque(order)
            longest = max(map(len, prompts), default=0) + max((r.max_new_tokens for r in requests), default=0)
            prefix = self._shared_prefix([prompts[i] for i in order], longest + SLACK)
            while waiting:
                self._greedy(waiting, prompts, requests, made, longest, prefix)
        return made

    def _shared_prefix(self, prompts: Sequence[Sequence[int]], capacity: int) -> SharedPrefix:
        """The beginning that all prompts share, if computing it once pays; empty if the model's answers would change.

        A model with a layer that does not attend to all of `capacity` columns has none, since such layers place their
        columns themselves.
        """
        length = common_length(prompts)
        cache = partial(reserved_cache, self.model.config, capacity)
        if len(prompts) < MANY or length < LEAST or not reserves_all(cache()):
            return NO_PREFIX
        some, pad = [prompts[0], prompts[-1]], self.tokenizer.pad_token_id
        expected = finite(read(self.model, some, pad, cache(), NO_PREFIX)[0])
        try:
            prefix = computed_prefix(self.model, prompts[0][:length])
            different = logit_difference(read(self.model, some, pad, cache(), prefix)[0], expected)
            reason = f"logits after a shared one are off by {different:.2g} standard deviations of a logit"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # models that do not support this mask or cache raise errors of many types
            different, reason = math.inf, short_message(error)
        if different <= logit_tolerance(self.model.dtype):
            return prefix
        log_once(
            f"the beginning that all prompts share is computed for each of them (slower, the same answers): {reason}"
        )
        return NO_PREFIX

    def _greedy(
        self,
        waiting: deque[int],
        prompts: Sequence[Sequence[int]],
        requests: Sequence[Request],
        made: list[list[int]],
        longest: int,
        prefix: SharedPrefix,
    ) -> None:
        """Answer all waiting prompts, longest first; only one batch of them if its rows cannot be replaced.

        `longest`: tokens of the longest prompt and answer.
        """
        rows: list[int | None] = [waiting.popleft() for _ in range(min(self.batch_size, len(waiting)))]
        first = [prompts[i] for i in rows if i is not None]
        batch = Decoding(self.model, first, longest, self.tokenizer.pad_token_id, self.steps, prefix)
        self._append_tokens(batch, rows, range(len(rows)), requests, made)
        least = max(1, self.batch_size // REFILL)
        while True:
            free = [row for row, i in enumerate(rows) if i is None]
            if waiting and batch.replaceable and len(free) >= min(least, len(waiting)):
                free = free[: len(waiting)]
                for row in free:
                    rows[row] = waiting.popleft()
                batch.replace(free, [prompts[i] for row in free if (i := rows[row]) is not None])
                self._append_tokens(batch, rows, free, requests, made)
                continue
            open_rows = [row for row, i in enumerate(rows) if i is not None]
            if not open_rows:
                return
            if free and batch.shrinks and not (waiting and batch.replaceable):
                batch.keep(open_rows)
                rows = [rows[row] for row in open_rows]
                open_rows = list(range(len(rows)))
            batch.step(open_rows)
            self._append_tokens(batch, rows, open_rows, requests, made)

    def _append_tokens(
        self,
        batch: Decoding,
        rows: list[int | None],
        changed: Sequence[int],
        requests: Sequence[Request],
        made: list[list[int]],
    ) -> None:
        """Append the newest tokens of the `changed` rows to `made`; set rows that are now finished to None."""
        tokens, ended = batch.tokens.tolist(), []
        for row in changed:
            i = rows[row]
            assert i is not None, "an open row"
            made[i].append(tokens[row])
            if self._ended(made[i], requests[i]):
                rows[row] = None
                ended.append(row)
        if ended:
            batch.end(ended)
        self.progress(len(ended))

    def _beams(
        self,
        order: Sequence[int],
        prompts: Sequence[Sequence[int]],
        requests: Sequence[Request],
        made: list[list[int]],
    ) -> None:
        """Beam search, one batch after another; a batch ends when all its beams have ended."""
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            ids, mask = padded([prompts[i] for i in numbers], self.tokenizer.pad_token_id, self.device)
            for i, tokens in zip(numbers, self._beam_search(ids, mask, requests[numbers[0]]), strict=True):
                made[i] = tokens
            self.progress(len(numbers))

    def _ended(self, tokens: Sequence[int], request: Request) -> bool:
        if tokens[-1] in self.ends or len(tokens) >= request.max_new_tokens:
            return True
        if not self._may_complete(tokens[-1], request.stop):
            return False
        tail = self.tokenizer.decode(tokens[-24:], skip_special_tokens=True)
        return any(stop in tail for stop in request.stop)

    def _may_complete(self, token: int, stop: Sequence[str]) -> bool:
        """Whether this token may complete a stop text; a cheap check that avoids decoding each row after every token.

        A completing token's text contains the stop text's last character. It can also be part of a multi-byte character
        (U+FFFD), and some tokenizers add a space only between tokens.
        """
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode([token], skip_special_tokens=True)
        text = self._texts[token]
        return any(word[-1:].isspace() or word[-1:] in text or "\ufffd" in text for word in stop)

    def _beam_search(self, ids: Tensor, mask: Tensor, request: Request) -> list[list[int]]:
        """transformers' beam search; all requests of a batch share one setting.

        Other generation settings have transformers' defaults, since models/load.py ignores those stored with a model.
        """

        def checked(_rows: Tensor, scores: Tensor) -> Tensor:
            return finite(scores)

        def look(rows: Tensor, _scores: Tensor, **_: Any) -> Tensor:
            self.progress(0)
            return torch.zeros(rows.shape[0], dtype=torch.bool, device=rows.device)

        settings = GenerationConfig(
            max_new_tokens=request.max_new_tokens, num_beams=request.beams, do_sample=False,
            eos_token_id=sorted(self.ends), pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        output = self.model.generate(
            input_ids=ids, attention_mask=mask, generation_config=settings, stopping_criteria=[look],
            logits_processor=[checked],
        )  # fmt: skip
        return [row[ids.shape[1] :].tolist() for row in output]

    def _answer(self, tokens: Sequence[int], request: Request) -> GeneratedAnswer:
        ended = next((position for position, token in enumerate(tokens) if token in self.ends), None)
        text = self.tokenizer.decode(tokens[:ended], skip_special_tokens=True)
        cuts = [text.index(word) for word in request.stop if word in text]
        truncated = ended is None and not cuts and len(tokens) >= request.max_new_tokens
        return GeneratedAnswer(text[: min(cuts)] if cuts else text, truncated)


@torch.inference_mode()
def check_generation(model: Any, examples: Sequence[EncodedText]) -> None:
    """Raises Unavailable if batched generation would change the model's answers.

    Compares next-token logits of a padded batch with a cache to those of single sequences without padding or cache,
    for the prompt and for one more token.
    """
    device = next(model.parameters()).device
    texts = sorted((example.ids for example in examples[:_CANDIDATES]), key=len)
    some = [text[:_COMPARED] for text in (texts[-1], texts[0])]
    own = [model(input_ids=torch.tensor([text], device=device), use_cache=False).logits[0].float() for text in some]
    ids, mask = padded([text[:-1] for text in some], 0, device)
    try:
        cache = reserved_cache(model.config, ids.shape[1] + 1)
        found = [last_logits(model, ids, mask, positions_of(mask), cache)]
        last, mask = torch.tensor([[text[-1]] for text in some], device=device), torch.cat([mask, mask[:, -1:]], dim=1)
        found.append(last_logits(model, last, mask, positions_of(mask)[:, -1:], cache))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # models that do not support batched generation raise errors of many types
        raise Unavailable(
            f"a {model.config.model_type} model cannot answer in batches here: {short_message(error)}"
        ) from None
    differences = [
        logit_difference(step, torch.stack([logits[place] for logits in own]))
        for step, place in zip(found, (-2, -1), strict=True)
    ]
    tolerance = logit_tolerance(model.dtype)
    if not max(differences) <= tolerance:
        raise Unavailable(
            f"a {model.config.model_type} model cannot answer in batches here: its logits in a padded batch with a "
            f"cache are off by {max(differences):.2g} standard deviations of a logit (accepted: {tolerance:g})"
        )


_CANDIDATES, _COMPARED = 64, 32  # examples to choose from, and compared tokens of each


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Token ids that end an answer, according to the tokenizer or the generation configuration."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    found = {tokenizer.eos_token_id}
    if configured is not None:
        found |= set(configured) if isinstance(configured, list) else {configured}
    return found - {None}
