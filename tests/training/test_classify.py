"""Packed sentences have the loss and the gradients of the padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

from sdsbench.tasks.sentences import EncodedSentence
from sdsbench.training import classifier_logits as classify
from sdsbench.training.classifier_objective import LabelledObjective

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60,
    "pad_token_id": 1, "num_labels": 3,
}  # fmt: skip
CONFIGS = {"bert": BertConfig(**SHAPE, type_vocab_size=2), "roberta": RobertaConfig(**SHAPE)}


class PaddingBatcher:
    """A batcher that pads as the tokenizers of both models do."""

    max_length = 64

    def collate(self, examples: Sequence[EncodedSentence]) -> dict[str, torch.Tensor]:
        width = max(example.length for example in examples)
        fill = {"input_ids": 1, "attention_mask": 0, "token_type_ids": 0}
        return {
            name: torch.tensor([[*e.inputs[name], *[fill[name]] * (width - e.length)] for e in examples])
            for name in examples[0].inputs
        }


def sentences(with_types: bool) -> list[EncodedSentence]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for label, length in enumerate((13, 4, 9, 2, 7)):
        ids = torch.randint(3, 60, (length,), generator=generator).tolist()
        inputs = {"input_ids": ids, "attention_mask": [1] * length}
        if with_types:
            inputs["token_type_ids"] = [0] * (length // 2) + [1] * (length - length // 2)
        found.append(EncodedSentence(inputs, float(label % 3)))
    return found


def loss_and_gradients(model: Any) -> tuple[float, dict[str, torch.Tensor], int]:
    examples = sentences(model.config.model_type == "bert")
    objective = LabelledObjective(PaddingBatcher(), regression=False, model=model)  # type: ignore[arg-type]
    model.zero_grad()
    loss = objective.loss(model, examples, torch.device("cpu"))
    loss.backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, objective.positions(model, examples, torch.device("cpu"))


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_of_shares_add_up(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(CONFIGS[name]).eval()
    examples, cpu = sentences(model.config.model_type == "bert"), torch.device("cpu")
    objective = LabelledObjective(PaddingBatcher(), regression=False, model=model)  # type: ignore[arg-type]
    found = objective.losses(model, [examples[:2], examples[2:]], cpu)
    expected = [objective.loss(model, share, cpu) for share in (examples[:2], examples[2:])]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_loss_and_gradients_equal_the_padded_batchs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(CONFIGS[name]).eval()
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.ndim == 2 else 1)
    found, found_gradients, found_positions = loss_and_gradients(model)
    monkeypatch.setattr(classify, "PACKED", ())
    expected, gradients, positions = loss_and_gradients(model)
    assert (found_positions, positions) == (35, 65)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        bound = 2e-5 * gradient.abs().max() + 1e-7  # the key bias has no effect, so its gradient is only rounding error
        assert (found_gradients[key] - gradient).abs().max() <= bound, key
    assert not model.base_model.encoder._forward_hooks


def test_dropout_of_attention_weights_is_applied() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(**SHAPE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
        model = AutoModelForSequenceClassification.from_config(config).train()
        first, second = (loss_and_gradients(model)[0] for _ in range(2))
    assert first != second
