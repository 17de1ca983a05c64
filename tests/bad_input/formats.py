"""Further input for the mutation campaign (mutation.py): models, data rows, images, caches, configurations and more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import datasets
import numpy as np
import torch
import yaml
from PIL import Image

import sdsbench.tasks.gsm8k
import sdsbench.tasks.math_training  # noqa: F401  # importing them registers their data sets
from sdsbench.core.disk_cache import cached
from sdsbench.data import sources
from sdsbench.data.content import decoded
from sdsbench.data.data_config import DataConfig
from sdsbench.models.load import load, load_tokenizer
from sdsbench.models.model_config import ModelConfig
from sdsbench.models.readers import converted
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.slurm_config import configure
from sdsbench.tasks.images import Transform
from tests.conftest import ROOT
from tests.models.folders import model_folder
from tests.models.test_gguf import ARCHITECTURE, header
from tests.results.test_importers import wandb_file

ROWS = [{"question": f"{i} + 1?", "answer": f"so #### {i + 1}"} for i in range(6)]


def write_inputs(folder: Path) -> None:
    """Write one small example of each kind, mostly into the folders that READERS names."""
    model_folder(folder / "model", "bert")
    for kind in ("jsonl", "parquet"):
        (folder / "rows" / kind / "gsm8k").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "rows" / "jsonl" / "gsm8k" / "train.jsonl").write_text(text)
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "rows" / "parquet" / "gsm8k" / "train.parquet")
    (folder / "rows" / "csv" / "metamathqa").mkdir(parents=True)
    (folder / "rows" / "csv" / "metamathqa" / "train.csv").write_text("query,response\na,b\nc,d\n")
    (folder / "images").mkdir()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(folder / "images" / "a.png")
    facts = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "size": {"height": 4, "width": 4}}
    (folder / "images" / "preprocessor_config.json").write_text(json.dumps(facts))
    (folder / "gguf").mkdir()
    (folder / "gguf" / "own.gguf").write_bytes(header(0, 1) + ARCHITECTURE)
    (folder / "conf" / "method").mkdir(parents=True)
    (folder / "conf" / "method" / "theirs.yaml").write_text((ROOT / "conf" / "method" / "lora.yaml").read_text())
    (folder / "conf" / "slurm").mkdir()
    (folder / "conf" / "slurm" / "theirs.yaml").write_text(yaml.safe_dump({"defaults": ["gpu"], "partition": "long"}))
    _cache_entry(folder)
    submission = folder / "planned" / "plan" / "submissions" / "001" / "submission.json"
    submission.parent.mkdir(parents=True)
    submission.write_text(json.dumps({"job": "77", "tasks": [["0123456789abcdef"]]}))
    log = folder / "wandb" / "run-2" / "run-2.wandb"
    (log.parent / "files").mkdir(parents=True)
    log.write_bytes(wandb_file([_history_line(step) for step in range(3)]))


def _history_line(step: int) -> bytes:
    """One message of a wandb log: the accuracy at a step."""
    from wandb.proto import wandb_internal_pb2

    record = wandb_internal_pb2.Record()
    record.history.item.add(nested_key=["eval", "accuracy"], value_json=str(step))
    return record.SerializeToString()


def _cache_entry(folder: Path) -> Path:
    """The cache entry in the folder, made where it is absent or damaged."""
    with mock.patch.dict("os.environ", {"SDSBENCH_CACHE": str(folder / "cache")}):
        return cached("kind", "name", "key", lambda made: (made / "content.txt").write_text("made") and None)


def read_model(folder: Path, _: Path) -> None:
    config = ModelConfig(
        name="theirs", family="encoder", source="folder", location=str(folder / "model"), revision=None
    )
    load_tokenizer(config)
    load(config, torch.float32, 2)


def read_rows(folder: Path, output: Path) -> None:
    """Load each data set. Only one of them can be damaged, so its error may end the loop."""
    with mock.patch.object(datasets.config, "HF_DATASETS_CACHE", output / "datasets"):
        for kind, name in (("jsonl", "gsm8k"), ("parquet", "gsm8k"), ("csv", "metamathqa")):
            sources.load(name, "train", DataConfig(source="local", root=str(folder / "rows" / kind)))


def read_images(folder: Path, _: Path) -> None:
    transform = Transform.of(SimpleNamespace(image_size=4), folder / "images")
    path = folder / "images" / "a.png"
    if path.is_file():  # a data set holds the bytes of an image, so no pipe or folder can take its place
        transform(decoded({"bytes": path.read_bytes()}))


def read_gguf(folder: Path, output: Path) -> None:
    with mock.patch.dict("os.environ", {"SDSBENCH_CACHE": str(output / "cache")}):
        converted("gguf", folder / "gguf" / "own.gguf")


def read_cache(folder: Path, _: Path) -> None:
    assert (_cache_entry(folder) / "content.txt").read_text() == "made"


def read_configurations(folder: Path, _: Path) -> None:
    define(["sweep=mine"], [str(folder / "conf")])
    configure(["slurm=theirs"], [str(folder / "conf")])
    compose_run(["model=micro", "method=theirs"], [str(folder / "conf")])


READERS: dict[str, Callable[[Path, Path], None]] = {
    "model": read_model, "rows": read_rows, "images": read_images, "gguf": read_gguf, "cache": read_cache,
    "conf": read_configurations,
}  # fmt: skip
"""Top-level folder of a file -> the function that reads it, from (the folder of all input, a folder to write to)."""
