"""Image classification: examples, resizing, batches. numpy and PIL only (no torchvision)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sdsbench.core.lazy import torch
from sdsbench.data.content import decoded, readable
from sdsbench.tasks.base import Row
from sdsbench.tasks.classification import LabelledTask

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class ImageExample:
    image: Image
    label: int


class ImageTask(LabelledTask):
    kind = "vision"
    image_column: ClassVar[str] = "image"
    label_column: ClassVar[str] = "label"

    def training_example(self, row: Row) -> ImageExample:
        """Also what evaluation reads: a row has the same columns in every split."""
        return ImageExample(decoded(row[self.image_column]), int(row[self.label_column]))


@dataclass(frozen=True)
class Transform:
    """Resize to a square (no crop), scale to 0..1, normalise per channel: what a ViT was trained on."""

    size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def of(cls, model_config: Any, folder: Path) -> Transform:
        """The model's image size, with the mean and std of its preprocessor_config.json (0.5 where it has none)."""
        path = folder / "preprocessor_config.json"
        stored = json.loads(path.read_text()) if path.is_file() else {}
        mean, std = stored.get("image_mean", cls.mean), stored.get("image_std", cls.std)
        return cls(int(model_config.image_size), tuple(mean), tuple(std))

    def __call__(self, image: Image) -> np.ndarray:
        """Pixels as float32 (channel, height, width)."""
        from PIL import Image as pil

        with readable("images"):
            resized = image.convert("RGB").resize((self.size, self.size), pil.Resampling.BILINEAR)
        pixels = np.asarray(resized, dtype=np.float32) / 255
        normalised = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))


@dataclass(frozen=True)
class EncodedImage:
    pixels_chw: np.ndarray
    label: float
    length: int = 1  # an image is one position: all have the same size
    targets: int = 1


class EncodedImages(Sequence[EncodedImage]):
    """Images encoded when asked for: a whole set at 224 x 224 does not fit in memory."""

    def __init__(self, rows: Any, task: ImageTask, transform: Transform) -> None:
        self._rows, self._task, self._transform = rows, task, transform

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: Any) -> Any:
        example = self._task.training_example(self._rows[position])
        return EncodedImage(self._transform(example.image), example.label)

    def __iter__(self) -> Iterator[EncodedImage]:
        return (self[position] for position in range(len(self)))


class ImageBatcher:
    def __init__(self, task: ImageTask, transform: Transform) -> None:
        self.task, self.transform = task, transform

    def encode_all(self, rows: Any) -> EncodedImages:
        return EncodedImages(rows, self.task, self.transform)

    def lengths(self, examples: Sequence[EncodedImage]) -> list[int]:
        """Known without decoding an image."""
        return [1] * len(examples)

    def collate(self, examples: Sequence[EncodedImage]) -> dict[str, Tensor]:
        """The model's input, pixel_values (b, 3, size, size)."""
        return {"pixel_values": torch.from_numpy(np.stack([example.pixels_chw for example in examples]))}
