"""Generated images: twelve kinds of patterns and shapes in random colours, sizes and positions, with noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIDE = 32
Rng = np.random.Generator
# Every pattern is a mask in 0..1 over the pixels (x_nm, y_nm in -1..1); it mixes two colours.
_Y, _X = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]


def _wave(values: np.ndarray, rng: Rng) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(values * rng.uniform(6, 16) + rng.uniform(0, 6.3))


def _centred(rng: Rng) -> tuple[np.ndarray, np.ndarray, float]:
    x, y = rng.uniform(-0.4, 0.4, 2)
    return _X - x, _Y - y, float(rng.uniform(0.3, 0.6))


def horizontal(rng: Rng) -> np.ndarray:
    return _wave(_Y, rng)


def vertical(rng: Rng) -> np.ndarray:
    return _wave(_X, rng)


def diagonal(rng: Rng) -> np.ndarray:
    return _wave((_X + _Y * rng.choice([-1, 1])) / 1.4, rng)


def chequered(rng: Rng) -> np.ndarray:
    return ((_wave(_X, rng) > 0.5) ^ (_wave(_Y, rng) > 0.5)).astype(float)


def dotted(rng: Rng) -> np.ndarray:
    return (_wave(_X, rng) * _wave(_Y, rng) > 0.5).astype(float)


def ringed(rng: Rng) -> np.ndarray:
    x, y, _ = _centred(rng)
    return _wave(np.hypot(x, y), rng)


def gradient(rng: Rng) -> np.ndarray:
    angle = rng.uniform(0, 6.3)
    return np.clip(0.5 + 0.5 * (_X * np.cos(angle) + _Y * np.sin(angle)), 0, 1)


def blotchy(rng: Rng) -> np.ndarray:
    coarse = rng.random((8, 8))
    return np.kron(coarse, np.ones((SIDE // 8, SIDE // 8)))


def disc(rng: Rng) -> np.ndarray:
    x, y, size = _centred(rng)
    return (np.hypot(x, y) < size).astype(float)


def square(rng: Rng) -> np.ndarray:
    x, y, size = _centred(rng)
    return (np.maximum(abs(x), abs(y)) < size * 0.85).astype(float)


def triangle(rng: Rng) -> np.ndarray:
    x, y, size = _centred(rng)
    return ((y < size) & (abs(x) < (y + size) / 2)).astype(float)


def cross(rng: Rng) -> np.ndarray:
    x, y, size = _centred(rng)
    return ((np.minimum(abs(x), abs(y)) < size / 4) & (np.maximum(abs(x), abs(y)) < size)).astype(float)


PATTERNS: dict[str, Callable[[Rng], np.ndarray]] = {
    pattern.__name__: pattern
    for pattern in (
        horizontal, vertical, diagonal, chequered, dotted, ringed, gradient, blotchy, disc, square, triangle, cross,
    )
}  # fmt: skip


def image(pattern: str, rng: Rng) -> np.ndarray:
    """One image, SIDE x SIDE x 3 in 0..1."""
    front, back = rng.random((2, 3))
    while abs(front - back).max() < 0.3:
        front, back = rng.random((2, 3))
    mask = PATTERNS[pattern](rng)[..., None]
    return np.clip(mask * front + (1 - mask) * back + rng.normal(0, 0.05, (SIDE, SIDE, 3)), 0, 1)


def batch(rng: Rng, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N x SIDE x SIDE x 3, in 0..1) and their labels (N indices into PATTERNS)."""
    labels = rng.integers(0, len(PATTERNS), count)
    names = list(PATTERNS)
    return np.stack([image(names[label], rng) for label in labels]), labels
