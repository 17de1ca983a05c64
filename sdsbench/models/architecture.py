"""Names and shapes of a model's linear layers from its config.json alone, before any weights are downloaded.

The configuration check needs them within seconds (does a target match, is the rank too large), and so do memory
estimates. They are read from the model that transformers builds on the meta device, so any architecture that it knows
works. Building takes seconds and imports torch, so the results are cached: for the shipped architectures in layers.json
(scripts/write_layers.py), for others in the machine's cache. Names are those of the task models: ...ForCausalLM,
...ForSequenceClassification, ...ForImageClassification.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sdsbench.core.disk_cache import cached
from sdsbench.core.errors import Unavailable
from sdsbench.core.hashing import sha256_of
from sdsbench.models.model_folder import check_counts, reading

FOLDER = Path(__file__).parent / "architectures"
LAYERS = Path(__file__).parent / "layers.json"
Shapes = dict[str, tuple[int, int]]  # name -> (m, n) = (output size, input size)
_FILE = "layers.json"


def shipped(name: str) -> dict[str, Any]:
    """The config.json of a known architecture (mistral_7b, ...).

    Raises Unavailable if the package ships none of that name.
    """
    path = FOLDER / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise Unavailable(f"no shipped architecture {name!r}: known are {known}")
    return json.loads(path.read_text())


def hashable(config_json: Mapping[str, Any]) -> Any:
    """A config.json in a form that has a hash: Infinity and NaN, which JSON for hashes excludes, become texts.

    Published configurations have them (Mamba-2's time_step_limit is [0, Infinity]).
    """
    return json.loads(json.dumps(config_json), parse_constant=str)


def linear_layers(config_json: Mapping[str, Any], family: str) -> Shapes:
    """(m, n) of every nn.Linear, heads included, by dotted name, in the model's order.

    `family` is decoder, encoder or vision. Raises Unavailable, with transformers' reason, for a configuration that it
    cannot build.
    """
    name = sha256_of(hashable(config_json))
    known = _shipped_layers().get(name)
    if known is not None:
        return expanded(known)
    check_counts(dict(config_json), "config.json")
    key = f"{name} {family} transformers {importlib.metadata.version('transformers')}"

    def build(folder: Path) -> None:
        (folder / _FILE).write_text(json.dumps(built_layers(config_json, family)))

    folder = cached("layers", sha256_of(key)[:16], key, build)
    return {layer: (m, n) for layer, (m, n) in json.loads((folder / _FILE).read_text()).items()}


def built_layers(config_json: Mapping[str, Any], family: str) -> Shapes:
    """The same as `linear_layers`, without the cache: builds the model on the meta device."""
    from torch import nn

    from sdsbench.models.load import without_weights

    with reading(f"config.json of a {config_json.get('model_type')!r} model"):
        model = without_weights(family, config_json)
    linear = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return {name: (module.out_features, module.in_features) for name, module in linear}


def compact(layers: Shapes) -> dict[str, Any]:
    """(layers of one block with {} in place of its number, number of blocks): a short form for models of equal
    blocks."""
    blocks: dict[str, tuple[int, int]] = {}
    numbers = set()
    for name, shape in layers.items():
        parts = name.split(".")
        place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if place is not None:
            numbers.add(int(parts[place]))
            parts[place] = "{}"
        blocks[".".join(parts)] = shape
    found = {"blocks": len(numbers), "layers": {name: list(shape) for name, shape in blocks.items()}}
    if expanded(found) != layers or list(expanded(found)) != list(layers):
        raise ValueError("the blocks are not alike")
    return found


def expanded(found: Mapping[str, Any]) -> Shapes:
    """The inverse of `compact`."""
    layers = {name: (m, n) for name, (m, n) in found["layers"].items()}
    repeated = {name: shape for name, shape in layers.items() if "{}" in name}
    made = {name.format(i): shape for i in range(found["blocks"]) for name, shape in repeated.items()}
    return made | {name: shape for name, shape in layers.items() if name not in repeated}


@cache
def _shipped_layers() -> dict[str, dict[str, Any]]:
    return json.loads(LAYERS.read_text())
