"""Write sdsbench/models/layers.json: the layers of the shipped architectures, as transformers builds them.

python scripts/write_layers.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sdsbench.core.hashing import sha256_of
from sdsbench.core.package import PACKAGE
from sdsbench.models.architecture import FOLDER, LAYERS, built_layers, compact

TYPES = {"bert": "encoder", "roberta": "encoder", "vit": "vision", "dinov2": "vision"}  # others are decoders


def architectures() -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every shipped config.json with the family of its model."""
    for path in [*sorted(FOLDER.glob("*.json")), *sorted((PACKAGE / "synthetic").glob("*/config.json"))]:
        facts = json.loads(path.read_text())
        yield facts, TYPES.get(facts["model_type"], "decoder")


def main() -> None:
    found = {sha256_of(facts): compact(built_layers(facts, family)) for facts, family in architectures()}
    LAYERS.write_text(json.dumps(found, indent=1, sort_keys=False) + "\n")


if __name__ == "__main__":
    main()
