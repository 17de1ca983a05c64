"""Greedy and beam generation with a model in memory: same answers at every batch size.

Prompts are batched by length, longest first (a batch that is too large fails at once), padded on the left with the
padding masked and positions counted from the first real token. Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from sdsbench.core.errors import Unavailable
from sdsbench.evaluation.cache import reserved_cache
from sdsbench.tasks.base import BeginToken
from sdsbench.training.tokens import EncodedText, prompt_ids


@dataclass(frozen=True)
class Request:
    """One prompt, and where its answer ends."""

    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...]
    beams: int = 1


@dataclass(frozen=True)
class Answer:
    """A generated text without its stop text and what follows; `truncated` where it reached max_new_tokens instead."""

    text: str
    truncated: bool


class Generator:
    """Answers prompts with a decoder; `progress` is told after every token how many more are done, and may raise."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int,
        progress: Callable[[int], None] = lambda _: None,
        begin_token: BeginToken = "tokenizer",
    ) -> None:
        self.begin_token: BeginToken = begin_token
        self.model, self.tokenizer, self.batch_size, self.progress = model, tokenizer, batch_size, progress
        self.device = next(model.parameters()).device
        self.ends = _end_tokens(model, tokenizer)

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """The generated text of every request, without its stop text and what follows, in the order of the requests."""
        return [answer.text for answer in self.answers(requests)]

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """The same with word of which answers were cut short."""
        prompts = [prompt_ids(request.prompt, self.tokenizer, self.begin_token) for request in requests]
        made = self.continuations(prompts, requests)
        return [self._answer(tokens, request) for tokens, request in zip(made, requests, strict=True)]

    @torch.inference_mode()
    def continuations(self, prompts: Sequence[Sequence[int]], requests: Sequence[Request]) -> list[list[int]]:
        """The generated tokens after every tokenised prompt."""
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        made: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            ids, mask = _padded([prompts[i] for i in batch], self.tokenizer.pad_token_id, self.device)
            if requests[batch[0]].beams > 1:
                generated = self._beam_search(ids, mask, requests[batch[0]])
            else:
                generated = self._greedy(ids, mask, [requests[i] for i in batch])
            for i, tokens in zip(batch, generated, strict=True):
                made[i] = tokens
            self.progress(len(batch))
        return made

    def _greedy(self, ids: Tensor, mask: Tensor, requests: Sequence[Request]) -> list[list[int]]:
        most = max(request.max_new_tokens for request in requests)
        cache = reserved_cache(self.model.config, ids.shape[1] + most)
        generated: list[list[int]] = [[] for _ in requests]
        rows = list(range(len(requests)))  # which requests the rows of the batch belong to
        inputs, positions = ids, _positions(mask)
        while rows:
            self.progress(0)
            tokens = _last_logits(self.model, inputs, mask, positions, cache).argmax(dim=-1)
            open_rows = []
            for position, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                generated[row].append(token)
                if not self._ended(generated[row], requests[row]):
                    open_rows.append(position)
            if len(open_rows) < len(rows):
                if not open_rows:
                    break
                keep = torch.tensor(open_rows, device=self.device)
                cache.batch_select_indices(keep)
                tokens, mask, positions = tokens[keep], mask[keep], positions[keep]
                rows = [rows[position] for position in open_rows]
            inputs, positions = tokens[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        return generated

    def _ended(self, tokens: Sequence[int], request: Request) -> bool:
        if tokens[-1] in self.ends or len(tokens) >= request.max_new_tokens:
            return True
        if not request.stop:
            return False
        tail = self.tokenizer.decode(tokens[-24:], skip_special_tokens=True)
        return any(stop in tail for stop in request.stop)

    def _beam_search(self, ids: Tensor, mask: Tensor, request: Request) -> list[list[int]]:
        """transformers' beam search; all requests of a batch share their settings.

        Everything else that decides an answer has transformers' default: load.py reads no such setting of the model.
        """

        def look(rows: Tensor, _scores: Tensor, **_: Any) -> Tensor:
            self.progress(0)
            return torch.zeros(rows.shape[0], dtype=torch.bool, device=rows.device)

        settings = GenerationConfig(
            max_new_tokens=request.max_new_tokens, num_beams=request.beams, do_sample=False,
            eos_token_id=sorted(self.ends), pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        output = self.model.generate(
            input_ids=ids, attention_mask=mask, generation_config=settings, stopping_criteria=[look]
        )
        return [row[ids.shape[1] :].tolist() for row in output]

    def _answer(self, tokens: Sequence[int], request: Request) -> Answer:
        ended = next((position for position, token in enumerate(tokens) if token in self.ends), None)
        text = self.tokenizer.decode(tokens[:ended], skip_special_tokens=True)
        cuts = [text.index(word) for word in request.stop if word in text]
        truncated = ended is None and not cuts and len(tokens) >= request.max_new_tokens
        return Answer(text[: min(cuts)] if cuts else text, truncated)


@torch.inference_mode()
def check_generation(model: Any, examples: Sequence[EncodedText]) -> None:
    """Raises Unavailable where answers would not be the model's own: next-token logits of a padded batch with a cache
    are compared with those of each sequence alone, without padding or cache, for the prompt and for one token more."""
    device = next(model.parameters()).device
    texts = sorted((example.ids for example in examples[:_AMONG]), key=len)
    some = [text[:_COMPARED] for text in (texts[-1], texts[0])]
    own = [model(input_ids=torch.tensor([text], device=device), use_cache=False).logits[0].float() for text in some]
    ids, mask = _padded([text[:-1] for text in some], 0, device)
    try:
        cache = reserved_cache(model.config, ids.shape[1] + 1)
        found = [_last_logits(model, ids, mask, _positions(mask), cache)]
        last, mask = torch.tensor([[text[-1]] for text in some], device=device), torch.cat([mask, mask[:, -1:]], dim=1)
        found.append(_last_logits(model, last, mask, _positions(mask)[:, -1:], cache))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # an architecture that lacks what generation needs raises whatever it likes
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise Unavailable(f"a {model.config.model_type} model cannot answer in batches here: {said}") from None
    differences = [
        float((step[row].float() - logits[place]).abs().max() / logits[place].std())
        for step, place in zip(found, (-2, -1), strict=True)
        for row, logits in enumerate(own)
    ]
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.3
    if not max(differences) <= tolerance:
        raise Unavailable(
            f"a {model.config.model_type} model cannot answer in batches here: its logits in a padded batch with a "
            f"cache are off by {max(differences):.2g} standard deviations of a logit (accepted: {tolerance:g})"
        )


_AMONG, _COMPARED = 64, 32  # examples that are looked at, and tokens of each


def _last_logits(model: Any, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """Logits of the token after each row (b x V); `inputs` are the columns that the cache does not hold yet."""
    output = model(
        input_ids=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    return output.logits[:, -1]


def _positions(mask: Tensor) -> Tensor:
    """Positions counted from the first real token."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids, mask) of prompts padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end an answer: the tokenizer's and the generation configuration's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    found = {tokenizer.eos_token_id}
    if configured is not None:
        found |= set(configured) if isinstance(configured, list) else {configured}
    return found - {None}
