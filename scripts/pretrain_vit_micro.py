"""Pretrain the `vit_micro` model from random weights: `python -m scripts.pretrain_vit_micro`.

A Vision Transformer of about 0.2 million parameters that classifies generated patterns (pretrain_vit_micro_images.py),
written to sdsbench/synthetic/vit_micro/ with its preprocessor's configuration and a model card. With one thread, the
same seed gives the same file on the same kind of processor.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from scripts.pretrain_vit_micro_images import PATTERNS, SIDE, batch

FOLDER = Path(__file__).parent.parent / "sdsbench" / "synthetic" / "vit_micro"
MEAN = STD = 0.5  # of every channel, as google/vit-base-patch16-224-in21k
IMAGES, PEAK_RATE, WARMUP = 64, 1.5e-3, 100


def configuration() -> ViTConfig:
    names = list(PATTERNS)
    return ViTConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=8,
        num_channels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )


def pixels(images: np.ndarray) -> torch.Tensor:
    """Images in 0..1, N x SIDE x SIDE x 3, as the model's input N x 3 x SIDE x SIDE."""
    return torch.from_numpy((images - MEAN) / STD).permute(0, 3, 1, 2).float()


def train(model: ViTForImageClassification, steps: int, seed: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05, fused=True)
    rng = np.random.default_rng([seed, 1])
    start = time.monotonic()
    for step in range(steps):
        rate = PEAK_RATE * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = batch(rng, IMAGES)
        logits = model(pixels(images)).logits
        loss = functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=0.05)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"step {step}: the loss is not finite")
        if (step + 1) % 100 == 0:
            passed = time.monotonic() - start
            left = passed / (step + 1) * (steps - step - 1)
            print(f"step {step + 1}/{steps} loss {loss.item():.4f} {passed:.0f} s, {left:.0f} s left", flush=True)


@torch.no_grad()
def accuracy(model: ViTForImageClassification, seed: int) -> float:
    """Share of 1000 unseen images that are classified correctly."""
    images, labels = batch(np.random.default_rng([seed, 2]), 1000)
    return float((model(pixels(images)).logits.argmax(-1).numpy() == labels).mean())


def model_card(model: ViTForImageClassification, steps: int, seed: int, right: float) -> str:
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"""# vit_micro

A Vision Transformer of {parameters:,} parameters for sweeps and tests in seconds; {SIDE} x {SIDE} pixels, patches of 8.

- Made from nothing by `python -m scripts.pretrain_vit_micro --steps {steps} --seed {seed}` on one thread, fp32.
- {steps} steps of {IMAGES} generated images of {len(PATTERNS)} patterns ({", ".join(PATTERNS)}), no downloaded image.
  Accuracy on 1000 unseen images of the same kinds: {right:.3f}.
- Input: pixels / 255, minus {MEAN}, divided by {STD} in every channel (preprocessor_config.json).
"""


def save(model: ViTForImageClassification, card: str, folder: Path) -> None:
    """Write into a temporary folder, then move file by file, so that no incomplete file is ever in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
    }
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vit-micro-") as name:
        staged = Path(name)
        model.save_pretrained(staged)
        (staged / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
        (staged / "MODEL_CARD.md").write_text(card)
        for path in sorted(staged.iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)  # initial weights; the images have their own generator
    model = ViTForImageClassification(configuration())
    train(model, arguments.steps, arguments.seed)
    right = accuracy(model.eval(), arguments.seed)
    save(model, model_card(model, arguments.steps, arguments.seed, right), arguments.folder)
    print(json.dumps({"accuracy": right, "folder": arguments.folder.name}))


if __name__ == "__main__":
    main()
