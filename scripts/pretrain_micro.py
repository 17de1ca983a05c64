"""Pretrain the `micro` model from random weights: `python -m scripts.pretrain_micro`.

A Llama of about 1.1 million parameters, trained on generated text (pretrain_micro_text.py) and written to
sdsbench/synthetic/micro/ with its tokenizer and a model card. With one thread, the same seed gives the same file on the
same kind of processor. Computed in bf16.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.pretrain_micro_text import HELD_OUT, documents
from scripts.pretrain_micro_tokenizer import POSITIONS, SPECIAL, VOCABULARY, save_tokenizer, train_tokenizer

FOLDER = Path(__file__).parent.parent / "sdsbench" / "synthetic" / "micro"
ROWS, COLUMNS = 12, 192  # tokens per step: 2304
PEAK_RATE, WARMUP, COOLDOWN = 4e-3, 100, 0.4  # the rate falls to zero over the last 40 % of the steps


def configuration(tokenizer: Tokenizer) -> LlamaConfig:
    pad, bos, eos = (tokenizer.token_to_id(token) for token in SPECIAL)
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )


def token_rows(tokenizer: Tokenizer, seed: int) -> Iterator[torch.Tensor]:
    """Batches of ROWS x (COLUMNS + 1) tokens: concatenated documents, half of them with a leading <bos>."""
    rng = np.random.default_rng([seed, 2])
    stream = documents(rng)
    bos, eos = tokenizer.token_to_id("<bos>"), tokenizer.token_to_id("<eos>")
    buffer: list[int] = []
    size = ROWS * (COLUMNS + 1)
    while True:
        while len(buffer) < size:
            for encoded in tokenizer.encode_batch([next(stream) for _ in range(64)]):
                buffer += [bos, *encoded.ids, eos] if rng.random() < 0.5 else [*encoded.ids, eos]
        yield torch.tensor(buffer[:size]).view(ROWS, COLUMNS + 1)
        buffer = buffer[size:]


def learning_rate(step: int, steps: int) -> float:
    """Rate of a step: linear warm-up, constant, then linear decay to zero."""
    cooldown = int(COOLDOWN * steps)
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP, (steps - step) / cooldown)


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, steps: int, seed: int) -> float:
    """Train in place and return the mean loss of the last 50 steps. Raises RuntimeError if a loss is not finite."""
    decayed = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    batches = token_rows(tokenizer, seed)
    losses: list[float] = []
    start = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        tokens = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"step {step}: the loss is not finite")
        if (step + 1) % 100 == 0:
            passed = time.monotonic() - start
            left = passed / (step + 1) * (steps - step - 1)
            recent = sum(losses[-50:]) / 50
            print(f"step {step + 1}/{steps} loss {recent:.4f} {passed:.0f} s, {left:.0f} s left", flush=True)
    return sum(losses[-50:]) / len(losses[-50:])


def model_card(model: LlamaForCausalLM, steps: int, seed: int, loss: float) -> str:
    parameters, threads = sum(weight.numel() for weight in model.parameters()), torch.get_num_threads()
    return f"""# micro

A Llama of {parameters:,} parameters (embeddings tied) for sweeps and tests in seconds. Not a language model of any use.

- Made from nothing by `python -m scripts.pretrain_micro --steps {steps} --seed {seed} --threads {threads}`, in bf16.
- {steps} steps of {ROWS} x {COLUMNS} = {ROWS * COLUMNS} tokens, {steps * ROWS * COLUMNS / 1e6:.1f} million in all;
  AdamW, peak learning rate {PEAK_RATE}. Loss over the last 50 steps: {loss:.4f}.
- Text: generated only (scripts/pretrain_micro_text.py): sums, stories with sums, exercises, short prose, yes/no and
  choice questions, simple instructions. No downloaded text.
- Stories and exercises come from the `pretrain` split of the embedded generators, which shares no problem with
  train, validation and test. Story templates whose solutions only fine-tuning shows: {", ".join(HELD_OUT)}.
- Sums never stand in the prompt format of fine-tuning, so the model answers next to none of the test questions before
  it is fine-tuned.
- Tokenizer: byte-level BPE, {VOCABULARY} tokens, one token per digit, lossless; the Alpaca header and `### Response:`
  are one token each. Positions: {POSITIONS}.
"""


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, card: str, folder: Path) -> None:
    """Write into a temporary folder, then move file by file, so that no incomplete file is ever in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".micro-") as name:
        staged = Path(name)
        model.save_pretrained(staged)
        save_tokenizer(tokenizer, staged)
        (staged / "MODEL_CARD.md").write_text(card)
        for path in sorted(staged.iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)  # initial weights; the text has its own generator
    tokenizer = train_tokenizer(arguments.seed)
    model = LlamaForCausalLM(configuration(tokenizer))
    loss = train(model, tokenizer, arguments.steps, arguments.seed)
    save(model, tokenizer, model_card(model, arguments.steps, arguments.seed, loss), arguments.folder)
    print(json.dumps({"loss": round(loss, 4), "folder": arguments.folder.name}))


if __name__ == "__main__":
    main()
