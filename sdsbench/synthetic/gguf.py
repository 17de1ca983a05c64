"""A GGUF file -> a plain model folder."""

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
    with contextlib.redirect_stderr(io.StringIO()):  # transformers' bar, which its own switch leaves on
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The loaded model refuses to be saved because it calls itself quantised; a copy without that flag does not.
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
    """Raises Unavailable where the file's sizes, or those that stand in for missing ones, are not those of its tensors:
    transformers would make a model of billions of random weights of a file without any."""
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    held = sum(math.prod(map(int, tensor.shape)) for tensor in GGUFReader(gguf).tensors)
    facts = load_gguf_checkpoint(str(gguf), return_tensors=False)["config"]
    check_counts(facts, gguf.name)
    check_size(gguf.name, without_weights("decoder", facts), held)


def joined(sums: Path, folder: Path) -> None:
    """The same for a GGUF file that lies in parts in packages of their own: PACKAGE_part1, PACKAGE_part2 ...

    `sums` is the file of PACKAGE that names the whole file and its sha256. Raises Unavailable where a part is not
    installed, or the parts are not that file.
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
    """The parts that are installed, in order."""
    for number in itertools.count(1):
        spec = importlib.util.find_spec(f"{package}_part{number}")
        if spec is None or not spec.submodule_search_locations:
            return
        yield from sorted(Path(spec.submodule_search_locations[0]).glob(f"data/{name}.part*"))
