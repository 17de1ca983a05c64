"""Find folders that a wheel contains inside the package and a checkout keeps beside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def bundled_folder(name: str, checkout: str | None = None) -> Path:
    """The folder `name` inside an installed package, else `checkout` (by default the same name) beside it."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / (checkout or name)
