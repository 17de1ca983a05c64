"""The objective of text tasks: next-token cross-entropy over the response (or the whole sequence)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdsbench.core.errors import Unavailable
from sdsbench.training.attention import packed, padding_length
from sdsbench.training.cross_entropy import linear_cross_entropy
from sdsbench.training.own_loss import needs_padding, padded_losses
from sdsbench.training.tokens import EncodedText, encode


class CausalObjective:
    """Encodes rows, packs examples into passes and computes the summed loss."""

    trains_head: ClassVar[bool] = False

    def __init__(self, task: Any, tokenizer: Any, max_length: int) -> None:
        self.task, self.tokenizer, self.max_length = task, tokenizer, max_length
        self.padded = False  # whether each example has a padded row of its own; `check` sets it

    @property
    def packed(self) -> bool:
        """Whether examples lie end to end in one row."""
        return not self.padded

    def encode_all(self, rows: Any) -> list[EncodedText]:
        """Encode every training row; rows without a target token within `max_length` are left out.

        Raises Unavailable if no row is left.
        """
        examples = map(self.task.training_example, rows)
        encoded = encode(examples, self.tokenizer, self.max_length, self.task.config)
        kept = [example for example in encoded if example.targets > 0]
        if not kept:
            raise Unavailable(
                f"train.max_length={self.max_length!r}: accepted: more than the longest prompt; "
                "no training row has a response token within it"
            )
        return kept

    def check(self, model: Any, examples: Sequence[EncodedText], device: torch.device) -> None:
        """Choose packed or padded rows: the layout that reproduces the model's own loss on a few examples.

        Call before the method changes the model. Raises Unavailable if neither layout reproduces that loss.
        """
        self.padded = needs_padding(model, self.losses, examples, device)

    def tokens(self, examples: Sequence[EncodedText]) -> int:
        """Tokens that a pass over the examples computes, including padding where rows are padded."""
        if self.padded:
            return len(examples) * max((example.length for example in examples), default=0)
        return sum(example.length for example in examples)

    def positions(self, model: Any, examples: Sequence[EncodedText], device: torch.device) -> int:
        """Positions that a pass over the examples computes, including the tokens that `padding_length` appends."""
        tokens = self.tokens(examples)
        return tokens + (0 if self.padded else padding_length(tokens, model.dtype, device))

    def longest(self, examples: Sequence[EncodedText]) -> int:
        """Tokens of the longest example."""
        return max(example.length for example in examples)

    def loss(self, model: Any, examples: Sequence[EncodedText], device: torch.device) -> Tensor:
        """Cross-entropy in nats summed over the target tokens of a pass (fp32 scalar)."""
        return self.losses(model, [examples], device)[0]

    def losses(self, model: Any, shares: Sequence[Sequence[EncodedText]], device: torch.device) -> list[Tensor]:
        """The summed loss of each share of examples, from one forward pass over all of them."""
        if self.padded:
            return padded_losses(model, shares, device)
        examples = [example for share in shares for example in share]
        lengths, tokens = [example.length for example in examples], [t for example in examples for t in example.ids]
        if filled := padding_length(len(tokens), model.dtype, device):
            lengths, tokens = [*lengths, filled], [*tokens, *[0] * filled]
        ids = torch.tensor(tokens, device=device)[None]
        positions = torch.cat([torch.arange(length) for length in lengths]).to(device)[None]
        with packed(model):
            hidden = model.base_model(
                input_ids=ids, position_ids=positions, use_cache=False, segment_lengths=lengths
            ).last_hidden_state[0]
        softcap = getattr(model.config, "final_logit_softcapping", None)
        head = model.get_output_embeddings()
        found = []
        sizes = [self.tokens(share) for share in shares]
        for share, rows in zip(shares, hidden[: sum(sizes)].split(sizes), strict=True):
            predicting, labels = self._targets(share)
            found.append(linear_cross_entropy(rows[predicting.to(device)], head.weight, labels.to(device), softcap))
        return found

    def outputs(self, model: Any, example: EncodedText, device: torch.device, tokens: int) -> Tensor:
        """Logits of the example's first `tokens` tokens, fp32."""
        return model(input_ids=torch.tensor([example.ids[:tokens]], device=device), use_cache=False).logits[0].float()

    @staticmethod
    def _targets(examples: Sequence[EncodedText]) -> tuple[Tensor, Tensor]:
        """(packed positions whose next token is a target, those target tokens), both int64 of length targets."""
        predicting: list[int] = []
        labels: list[int] = []
        start = 0
        for example in examples:
            first = max(example.first_target, 1)
            predicting += range(start + first - 1, start + example.length - 1)
            labels += example.ids[first:]
            start += example.length
        return torch.tensor(predicting, dtype=torch.long), torch.tensor(labels, dtype=torch.long)
