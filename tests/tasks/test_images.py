"""Pixels for a model: resized, scaled to 0..1, and normalised per channel by the settings of the model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sdsbench.core.errors import ConfigError
from sdsbench.tasks.images import Transform

FACTS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
COLOUR = (51, 102, 204)  # 0.2, 0.4, 0.8 of 255


def transform_of(folder: Path, facts: dict | None = None, size: int = 4) -> Transform:
    if facts is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return Transform.of(SimpleNamespace(image_size=size), folder)


def test_pixels_are_normalised_by_the_folders_mean_and_deviation(tmp_path: Path) -> None:
    pixels_chw = transform_of(tmp_path, FACTS)(Image.new("RGB", (9, 5), COLOUR))
    assert pixels_chw.shape == (3, 4, 4) and pixels_chw.dtype == np.float32
    expected = [(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.6, (0.8 - 0.3) / 0.7]
    for channel, value in zip(pixels_chw, expected, strict=True):
        assert channel == pytest.approx(np.full((4, 4), value), abs=1e-6)


def test_default_mean_and_deviation_are_a_half(tmp_path: Path) -> None:
    pixels_chw = transform_of(tmp_path)(Image.new("RGB", (4, 4), COLOUR))
    assert pixels_chw[:, 0, 0] == pytest.approx([2 * 0.2 - 1, 2 * 0.4 - 1, 2 * 0.8 - 1], abs=1e-6)


def test_rows_keep_their_order_and_grey_images_get_three_channels(tmp_path: Path) -> None:
    """The upper half is white and the lower black; a transposed image would be white on the left."""
    grey = np.zeros((8, 8), np.uint8)
    grey[:4] = 255
    pixels_chw = transform_of(tmp_path, {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}, size=8)(
        Image.fromarray(grey)
    )
    assert pixels_chw.shape == (3, 8, 8)
    assert (pixels_chw[:, :4] == 1).all() and (pixels_chw[:, 4:] == 0).all()


def test_pixels_equal_those_of_transformers(tmp_path: Path) -> None:
    """The image processor of transformers has the same settings; the image needs no resizing."""
    from transformers import ViTImageProcessorPil

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    reference = ViTImageProcessorPil(size={"height": 6, "width": 6}, **FACTS)(image, return_tensors="np")
    assert transform_of(tmp_path, FACTS, size=6)(image) == pytest.approx(reference["pixel_values"][0], abs=1e-5)


def test_settings_of_the_folder_are_applied(tmp_path: Path) -> None:
    """Filter, scale, no normalisation and null means; a size may be a list, a number or a mapping."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    plain = transform_of(tmp_path, {"do_normalize": False, "resample": 3, "size": [4, 4]})(image)
    expected = np.asarray(image.resize((4, 4), Image.Resampling.BICUBIC), np.float32).transpose(2, 0, 1) / 255
    assert plain == pytest.approx(expected, abs=1e-6)
    unscaled = transform_of(tmp_path, {"do_normalize": False, "do_rescale": False, "size": 4, "resample": 3})(image)
    assert unscaled == pytest.approx(expected * 255, abs=1e-3)
    assert transform_of(tmp_path, {"image_mean": None, "image_std": None}) == transform_of(tmp_path, {})
    assert transform_of(tmp_path, {"size": {"shortest_edge": 256}, "crop_size": 4}).size == 4, "resized, not cropped"


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"resample": 9}, "resample"),
        ({"size": {"height": 5, "width": 4}}, "size"),
        ({"size": [8, 8]}, "size"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std"),
        ([1], "preprocessor_config.json"),
        ({"resample": [2]}, "resample"),
        ({"resample": {"a": 1}}, "resample"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"rescale_factor": [1]}, "rescale_factor"),
        ({"image_mean": [0.5, 0.5, 10**400]}, "image_mean"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "image_std"),
    ],
    ids=str,
)
def test_unsupported_settings_are_refused(tmp_path: Path, facts: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        transform_of(tmp_path, facts)
