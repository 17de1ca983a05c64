"""The contestants of a benchmark: optimizer steps of this project, and of peft in a plain padded AdamW loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.workloads import Workload
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.methods.attach import attach, merged
from sdsbench.methods.base import build, lookup
from sdsbench.runs.memory import CPU_TOKENS
from sdsbench.training.causal import CausalObjective, EncodedText
from sdsbench.training.data_context import TrainingContext
from sdsbench.training.dropout import Dropout
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.order import DataOrder
from sdsbench.training.parameters import optimizer_groups
from sdsbench.training.side_by_side import with_shared_weights
from sdsbench.training.state import TrainState
from sdsbench.training.training_config import TrainConfig

METHODS = (
    "lora",
    "rslora",
    "dora",
    "pissa",
    "lora_pro",
    "lora_xs",
    "lora_sb",
    "sds_lora",
    "sds_lora_refreshed",
    "full_ft",
)
REFRESHED = "_refreshed"
PEFT = {
    "peft_lora": {},
    "peft_rslora": {"use_rslora": True},
    "peft_dora": {"use_dora": True},
    "peft_pissa": {"init_lora_weights": "pissa_niter_4"},
}
REFERENCES = ("peft_lora", "lora")  # ratios are relative to these contestants
LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
OWN_WEIGHTS = ("full_ft", "peft_pissa")  # these change the base's weights, so each gets a copy


class Contestant(Protocol):
    """One way to train. `step` makes a whole optimizer step on a batch and returns its loss."""

    name: str
    init_seconds: float
    model: Any

    def loss(self, batch: Sequence[EncodedText]) -> Tensor: ...
    def step(self, batch: Sequence[EncodedText]) -> float: ...
    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> int: ...


class Ours:
    """A method of this project in its training loop. `keys` override keys of the method's configuration."""

    def __init__(self, name: str, base: Any, tokenizer: Any, rank: int, workload: Workload, keys: Mapping[str, Any]):
        self.name, self.tokenizer = name, tokenizer
        self.model = copy.deepcopy(base) if name in OWN_WEIGHTS else with_shared_weights(base)
        self.device = next(base.parameters()).device
        started = time.perf_counter()
        method = name.removesuffix(REFRESHED)
        self.method = build(lookup(method)[1](name=method, **_method_keys(method, rank), **keys))
        config = TrainConfig(lr=LEARNING_RATE, batch_size=workload.batch_size, max_steps=1000, clip_norm=CLIP_NORM)
        layers = attach(self.model, self.method, 0)
        order = DataOrder(len(workload.examples), workload.batch_size, 0)
        self.objective = CausalObjective(None, tokenizer, 0)
        tokens = CPU_TOKENS if self.device.type == "cpu" else None
        self.training = Training(
            self.model, self.objective, workload.examples, order, config, self.device, Dropout(self.model, 0), tokens
        )
        groups = optimizer_groups(self.model, self.method, [], config)
        self.state = TrainState(FlatOptimizer(groups, config), self.method, layers)
        self.method.prepare(layers, TrainingContext(self.training, torch.Generator().manual_seed(0)))
        self.init_seconds = time.perf_counter() - started
        self.model.train()

    def loss(self, batch: Sequence[EncodedText]) -> Tensor:
        return self.objective.loss(self.model, batch, self.device)

    def step(self, batch: Sequence[EncodedText]) -> float:
        return self.training.step_on(self.state, batch).loss

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> int:
        """Generate `new_tokens` for every prompt with the merged model; returns the number of generated tokens."""
        model = merged(self.model, torch.float32 if self.device.type == "cpu" else None).eval()
        generator = Generator(model, self.tokenizer, len(prompts))
        generator.ends = set()
        made = generator.continuations(prompts, [Request("", new_tokens, ())] * len(prompts))
        return sum(map(len, made))


class Peft:
    """peft as in its method_comparison: right padding, full logits, the model's own loss, AdamW, clipping."""

    def __init__(self, name: str, base: Any, tokenizer: Any, rank: int):
        from peft import LoraConfig, get_peft_model

        self.name, self.pad = name, tokenizer.pad_token_id
        self.device = next(base.parameters()).device
        model = copy.deepcopy(base) if name in OWN_WEIGHTS else with_shared_weights(base)
        started = time.perf_counter()
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", **PEFT[name]
        )
        self.model = get_peft_model(model, config)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE, weight_decay=0.0)
        self.init_seconds = time.perf_counter() - started
        self.model.train()

    def loss(self, batch: Sequence[EncodedText]) -> Tensor:
        width = max(example.length for example in batch)
        ids = [[*e.ids, *[self.pad] * (width - e.length)] for e in batch]
        labels = [[-100] * e.first_target + list(e.ids[e.first_target :]) + [-100] * (width - e.length) for e in batch]
        mask = [[1] * e.length + [0] * (width - e.length) for e in batch]
        inputs = {"input_ids": ids, "labels": labels, "attention_mask": mask}
        return self.model(**{key: torch.tensor(value, device=self.device) for key, value in inputs.items()}).loss

    def step(self, batch: Sequence[EncodedText]) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP_NORM)
        self.optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> int:
        self.model.eval()
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        made = self.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False,
            pad_token_id=self.pad,
        )  # fmt: skip
        self.model.train()
        return len(prompts) * (made.shape[1] - width)


@dataclass(frozen=True)
class Pad:
    """Stand-in for a tokenizer in workloads of random tokens."""

    pad_token_id: int = 0
    eos_token_id: int = 2


def builder(name: str, base: Any, tokenizer: Any, rank: int, workload: Workload) -> Callable[[], Contestant]:
    """A function that builds the contestant `name`: a method of this project, or peft_METHOD.

    SDS-LoRA leaves its warm-up after one step. sds_lora never refreshes its bases, sds_lora_refreshed refreshes them in
    every layer at every step. A real run lies between the two, by the share of its steps that refresh.
    """
    if name in PEFT:
        return lambda: Peft(name, base, tokenizer, rank)
    keys: dict[str, Any] = {}
    if name.startswith("sds_lora"):
        keys = {"warmup_steps": 1, "refresh": "every" if name.endswith(REFRESHED) else "never", "guard": 0.0}
    return lambda: Ours(name, base, tokenizer, rank, workload, keys)


def _method_keys(name: str, rank: int) -> dict[str, Any]:
    if name == "full_ft":
        return {}
    alpha = {"pissa": rank, "lora_sb": 1.0, "sds_lora": 4.0}.get(name, 2 * rank)
    keys: dict[str, Any] = {"rank": rank, "alpha": float(alpha)}
    return keys | ({"svd": "fast"} if name == "lora_xs" else {})
