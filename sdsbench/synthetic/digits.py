"""Real images without a download: scikit-learn's 1,797 handwritten digits (8x8 grey, UCI Optdigits, CC BY 4.0).

A sample row: {"image": <PIL image, 32x32 RGB>, "label": 7}

They replace the images of every vision task offline; records then state the data source `embedded`. If a task has
fewer than ten classes, the label is the digit modulo the number of classes (2 classes: even or odd).
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

# split -> range of the data set, as fractions
_SHARES = {"train": (0.0, 0.6), "validation": (0.6, 0.75), "test": (0.75, 1.0)}
SIDE = 32


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def rows(
    split: str, count: int, seed: int = 0, classes: int = 10, columns: tuple[str, str] = ("image", "label")
) -> list[dict[str, Any]]:
    """At most `count` rows of a split, in an order drawn from `seed`.

    Raises KeyError for a split other than train, validation and test.
    """
    from PIL import Image

    images, labels = _digits()
    image_column, label_column = columns
    first, last = (int(share * len(images)) for share in _SHARES[split])
    order = first + np.random.default_rng(seed).permutation(last - first)[:count]
    made = []
    for position in order:
        grey = np.rint(images[position] * (255 / 16)).astype(np.uint8)
        picture = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
        made.append({image_column: picture, label_column: int(labels[position]) % classes})
    return made


rows_2, rows_4, rows_5, rows_6, rows_8, rows_9 = (partial(rows, classes=classes) for classes in (2, 4, 5, 6, 8, 9))
cifar10_rows = partial(rows, columns=("img", "label"))
cifar100_rows = partial(rows, columns=("img", "fine_label"))
