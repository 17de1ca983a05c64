"""Image classification: examples, resizing, batches. numpy and PIL only (no torchvision)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sdsbench.core.errors import ConfigError, DamagedFile, Problem
from sdsbench.core.lazy import torch
from sdsbench.core.reading import finite, parse_json
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
        """The example of a row; also used for evaluation, since all splits have the same columns."""
        return ImageExample(decoded(row[self.image_column]), int(row[self.label_column]))

    def asked(self, row: Row, index: int) -> str:
        image = row[self.image_column]
        path = image.get("path") if isinstance(image, dict) else getattr(image, "filename", None)
        return str(path) if path else f"image {index}"


BILINEAR = 2  # PIL's number, as preprocessor_config.json has it
FILTERS = {0: "nearest", 1: "lanczos", BILINEAR: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True)
class Transform:
    """Resize to a square (no crop), scale to [0, 1] and normalise per channel, as in a ViT's pretraining."""

    size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resample: int = BILINEAR
    factor: float = 1 / 255

    @classmethod
    def of(cls, model_config: Any, folder: Path, other_size: bool = False) -> Transform:
        """Build the transform from the model's image size and the filter, scale, mean and std in its
        preprocessor_config.json.

        A key that is absent or null gets transformers' default for a ViT. A crop is ignored (the papers resize only).
        With `other_size` (model.image_size is set) the file's size is ignored. Raises ConfigError for an unreadable
        file or an unsupported value.
        """
        path, size = folder / "preprocessor_config.json", int(model_config.image_size)
        stored = _processor(path)
        problems = list(_processor_problems(stored, size, other_size))
        if problems:
            raise ConfigError([Problem(f"preprocessor_config.json: {key}", *rest) for key, *rest in problems])
        normalised, scaled = stored.get("do_normalize") is not False, stored.get("do_rescale") is not False
        mean, std = (
            stored.get(key) or getattr(cls, name) for key, name in (("image_mean", "mean"), ("image_std", "std"))
        )
        return cls(
            size,
            tuple(mean) if normalised else (0.0, 0.0, 0.0),
            tuple(std) if normalised else (1.0, 1.0, 1.0),
            cls.resample if stored.get("resample") is None else stored["resample"],
            (stored.get("rescale_factor") or cls.factor) if scaled else 1.0,
        )

    def __call__(self, image: Image) -> np.ndarray:
        """The image as float32 pixels of shape (channels, height, width)."""
        from PIL import Image as pil

        with readable("images"):
            resized = image.convert("RGB").resize((self.size, self.size), pil.Resampling(self.resample))
        pixels = np.asarray(resized, dtype=np.float32) * np.float32(self.factor)
        normalised = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def _processor(path: Path) -> dict[str, Any]:
    """The content of preprocessor_config.json; empty if there is no file. Raises ConfigError if it is not a JSON
    object."""
    try:
        stored = parse_json(path.read_bytes(), path) if path.is_file() else {}
    except DamagedFile:
        stored = None
    if not isinstance(stored, dict):
        raise ConfigError([Problem("preprocessor_config.json", str(path.name), "a JSON object")])
    return stored


def _processor_problems(stored: Mapping[str, Any], size: int, other_size: bool) -> Iterator[tuple[str, Any, str, str]]:
    """(key, value, what is accepted, advice) for each unsupported value."""
    if stored.get("do_resize") is False:
        yield "do_resize", False, f"true: images become {size} x {size}", "Remove the key."
    if stored.get("resample") is not None and stored["resample"] not in list(FILTERS):  # a list has no hash
        yield (
            "resample",
            stored["resample"],
            ", ".join(f"{n} ({name})" for n, name in FILTERS.items()),
            "PIL's numbers.",
        )
    wanted = None if other_size else stored.get("size")
    sides = list(wanted.values()) if isinstance(wanted, dict) else wanted if isinstance(wanted, list) else [wanted]
    cropped = isinstance(wanted, dict) and "shortest_edge" in wanted  # resized further, then cropped: left out
    if wanted is not None and not cropped and any(side != size for side in sides):
        advice = "The model has that many positions; model.image_size=N resamples them."
        yield "size", wanted, f"{size}, the model's image_size, in every direction", advice
    for key in ("image_mean", "image_std"):
        values = stored.get(key)
        numbers = isinstance(values, list) and all(map(finite, values))
        if values is not None and not (numbers and len(values) == 3 and (key == "image_mean" or all(values))):
            yield key, values, "three numbers, a channel each (image_std: not 0), or null", ""
    factor = stored.get("rescale_factor")
    if factor is not None and not finite(factor):
        yield "rescale_factor", factor, "a number, or null", ""


@dataclass(frozen=True)
class EncodedImage:
    pixels_chw: np.ndarray
    label: float
    length: int = 1  # an image is one position: all have the same size
    targets: int = 1


class EncodedImages(Sequence[EncodedImage]):
    """Images that are encoded on access, since a whole data set at 224 x 224 does not fit in memory."""

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
    max_length = None

    def __init__(self, task: ImageTask, transform: Transform) -> None:
        self.task, self.transform = task, transform

    def encode_all(self, rows: Any) -> EncodedImages:
        return EncodedImages(rows, self.task, self.transform)

    def lengths(self, examples: Sequence[EncodedImage]) -> list[int]:
        """Lengths of all examples, known without decoding any image."""
        return [1] * len(examples)

    def collate(self, examples: Sequence[EncodedImage]) -> dict[str, Tensor]:
        """The model's input, pixel_values (b, 3, size, size)."""
        return {"pixel_values": torch.from_numpy(np.stack([example.pixels_chw for example in examples]))}
