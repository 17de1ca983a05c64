"""Tiny random models of three families and a short training loop for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    ViTConfig,
)

from sdsbench.methods.attach import attach
from sdsbench.methods.base import Layers, LowRankConfig, Method, build, lookup
from sdsbench.methods.dropout_masks import DropoutMasks
from sdsbench.methods.gradients import summed_gradients

FAMILIES = ("decoder", "encoder", "vision")
_FILES = (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml")
METHODS = tuple(sorted(path.stem for path in _FILES if not lookup(path.stem)[0].packages))
"""Every method whose layers are this package's; test_peft_method.py tests method=peft."""
LOW_RANK = tuple(name for name in METHODS if issubclass(lookup(name)[1], LowRankConfig))


def tiny_model(family: str, dtype: torch.dtype = torch.float32, layers: int = 2) -> nn.Module:
    """A random model without dropout and with random biases, equal at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "decoder":
            config = LlamaConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=40,
            )
            model = AutoModelForCausalLM.from_config(config)
        elif family == "encoder":
            config = BertConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=layers,
                num_attention_heads=4,
                vocab_size=40,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
            model = AutoModelForSequenceClassification.from_config(config)
        else:
            config = ViTConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=layers,
                num_attention_heads=4,
                image_size=8,
                patch_size=4,
            )
            model = AutoModelForImageClassification.from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(4)  # with transformers' 0.02, methods would hardly differ
            elif name.endswith("bias"):
                parameter.data.normal_(std=0.1)
    return model.to(dtype).train()


def tiny_batch(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Four random examples with labels."""
    generator = torch.Generator().manual_seed(seed)
    if family == "vision":
        images = torch.randn(4, 3, 8, 8, generator=generator).to(dtype)
        return {"pixel_values": images, "labels": torch.tensor([0, 1, 1, 0])}
    ids = torch.randint(0, 40, (4, 7), generator=generator)
    return {"input_ids": ids, "labels": ids if family == "decoder" else torch.tensor([0, 1, 1, 0])}


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The model's logits on the batch, in fp32 on the CPU."""
    device = next(model.parameters()).device
    with torch.no_grad():
        inputs = {key: value.to(device) for key, value in batch.items() if key != "labels"}
        return model(**inputs).logits.float().cpu()


def make_method(name: str, **keys: object) -> Method:
    """The method of rank 4 with these keys of its configuration."""
    config_class = lookup(name)[1]
    keys = {"rank": 4, **keys} if name != "full_ft" else keys
    if name == "sds_lora":
        keys = {"warmup_steps": 2, "guard": 1e-6, **keys}
    config = config_class(name=name, **keys)  # type: ignore[arg-type]
    assert list(config.problems()) == []
    return build(config)


@dataclass
class Context:
    """A DataContext for `prepare` in which `run_backward` computes the gradients of all rows."""

    run_backward: Callable[[], None]
    train_rows: int = 1000
    total_steps: int = 10
    warmup_steps: int = 2
    warmup_ratio: float = 0.2
    epochs: float = 1.0
    learning_rate: float = 1e-3
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(5))
    rows: list[int] = field(default_factory=list)  # number of rows of each request for gradients

    def summed_gradients(
        self, layers: Layers, rows: int, batch: int = 1, dropout: bool = False, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        self.rows.append(rows)
        return summed_gradients(layers, self.run_backward, dtype)


@dataclass
class Session:
    """A model with a method attached and prepared, and its optimizer once `train` was called."""

    model: nn.Module
    method: Method
    layers: dict
    batch: dict[str, Tensor]
    facts: dict[str, float]
    cleared: int = 0  # how often the method cleared the optimizer's state

    def clear_state(self, head: bool = False) -> None:
        self.cleared += 1
        self.optimizer.state.clear()

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def train(self, steps: int, lr: float = 1e-2, total_steps: int = 10, accumulation: int = 1) -> list[float]:
        """Take AdamW steps (SGD where the method asks for it); returns the loss of each."""
        if not hasattr(self, "optimizer"):
            sgd = self.method.update_rule == "sgd"
            groups = [
                {"params": [p], "lr": lr * self.method.learning_rate_factor(name, p.ndim)}
                for name, p in self.trainable().items()
            ]
            self.optimizer = torch.optim.SGD(groups) if sgd else torch.optim.AdamW(groups, weight_decay=0)
            self.step, self.events = 0, {}
        losses = []
        for _ in range(steps):
            self.step += 1
            self.optimizer.zero_grad()
            for _ in range(accumulation):
                loss = self.model(**self.batch).loss
                loss.backward()
            self.method.before_step(self.layers, self.step, lr)
            self.optimizer.step()
            facts = self.method.after_step(self.layers, self.step, total_steps, self)
            if facts:
                self.events[self.step] = facts
            losses.append(loss.item())
        return losses


def tiny_session(
    name: str,
    family: str = "decoder",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    device: str = "cpu",
    **keys: object,
) -> Session:
    """A new tiny model with the method attached and prepared."""
    model = tiny_model(family, dtype).to(device)
    batch = {key: value.to(device) for key, value in tiny_batch(family, dtype).items()}
    method = make_method(name, **keys)
    layers = attach(model, method, seed)
    for layer in layers.values():
        layer.dropout_masks = DropoutMasks(3)
    context = Context(lambda: model(**batch).loss.backward())
    return Session(model, method, layers, batch, method.prepare(layers, context))
