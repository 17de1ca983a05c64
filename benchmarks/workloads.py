"""Models at real shapes, and batches of real or random lengths that are equal for every contestant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sdsbench.models import architecture
from sdsbench.training.causal import EncodedText

# Mean and standard deviation of log lengths: 245 tokens on average; random batches of 4 are padding to a third, as
# those of MetaMathQA.
LENGTHS = (5.4, 0.47)
RESPONSE_SHARE = 0.6  # share of an example's tokens that carry loss if lengths are random


@dataclass(frozen=True)
class Workload:
    """Examples in a fixed random order; a batch is the next `batch_size` of them."""

    name: str
    examples: Sequence[EncodedText]
    batch_size: int

    def batch(self, number: int) -> list[EncodedText]:
        """Batch `number`; after the last example the first follows again."""
        start = number * self.batch_size
        return [self.examples[(start + i) % len(self.examples)] for i in range(self.batch_size)]

    def padding_share(self, batches: int) -> float:
        """Share of positions that are padding in right-padded batches."""
        padded = sum(max(e.length for e in self.batch(n)) * self.batch_size for n in range(batches))
        return 1 - sum(e.length for n in range(batches) for e in self.batch(n)) / padded


def drawn(vocabulary: int, batch_size: int, max_length: int, count: int = 256, seed: int = 0) -> Workload:
    """Random tokens with log-normal lengths: speed does not depend on the values."""
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.lognormal(*LENGTHS, count).astype(int), 16, max_length)
    examples = [
        EncodedText(tuple(generator.integers(3, vocabulary, length).tolist()), int(length * (1 - RESPONSE_SHARE)))
        for length in lengths
    ]
    return Workload(f"drawn lengths, at most {max_length}", examples, batch_size)


def every_example_long(batch_size: int, length: int, count: int = 256) -> Workload:
    """Examples that all have `length` tokens, so that batches need no padding."""
    example = EncodedText(tuple(range(3, 3 + length)), int(length * (1 - RESPONSE_SHARE)))
    return Workload(f"all of {length} tokens", [example] * count, batch_size)


def gsm8k(model_name: str, tokenizer: Any, batch_size: int, max_length: int, root: str | None) -> Workload:
    """GSM8K training examples: the real ones in the folder `root`, or generated word problems if `root` is None."""
    from sdsbench.data.held_back import load_training
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.tasks import base as tasks
    from sdsbench.training.causal import CausalObjective

    source = [f"data.source={'local' if root else 'embedded'}", *([f"data.root={root}"] if root else [])]
    config = compose_run([f"model={model_name}", "method=lora", "task=gsm8k", *source])
    rows = load_training("gsm8k", config.data)
    positions = np.random.default_rng(0).permutation(len(rows))[:256].tolist()
    objective = CausalObjective(tasks.build(config.task), tokenizer, max_length)
    name = f"GSM8K ({'real' if root else 'embedded'}), at most {max_length}"
    return Workload(name, objective.encode_all(rows.take(positions)), batch_size)


def random_model(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A shipped architecture at its real shapes with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    facts = dict(architecture.shipped(name))
    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def loaded_model(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """(model, tokenizer) with pretrained weights."""
    from sdsbench.models.load import load
    from sdsbench.runs.configuration.compose import compose_run

    loaded = load(compose_run([f"model={name}", "method=lora", "task=gsm8k"]).model, dtype)
    return loaded.model, loaded.tokenizer


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work, so that a clock read next includes it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
