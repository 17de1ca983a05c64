"""Importing W&B run folders (run-* or offline-run-*): the last value of each logged metric, and the configuration.

Reads files/wandb-summary.json and files/config.yaml if W&B wrote them; an offline run has only its .wandb file
(wandb_log.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.leaves import leaves
from sdsbench.core.limits import EXTERNAL
from sdsbench.core.reading import read_json
from sdsbench.core.record import STAGES
from sdsbench.core.yaml_text import read_yaml
from sdsbench.results.importers import wandb_log
from sdsbench.results.importers.external import ExternalRecord, number, origin

_SECONDS = ("cost/train_seconds", "_runtime")


def read(folder: Path) -> ExternalRecord:
    """Read one run folder. Numbers of the summary become scores; config values are looked up under their usual names.

    Raises Unavailable if the folder holds neither a summary nor a .wandb file, DamagedFile if they cannot be parsed.
    """
    source, summary, raw = _contents(folder)
    config = dict(leaves(raw))
    numbers = {key: usable for key, value in leaves(summary) if (usable := number(value)) is not None}
    rank = number(_first(config, "method.rank", "rank", "lora_r", "r", *_of_adapter("r")))
    seed = number(_first(config, "seed"))
    own = "run_id" in config  # logged by this package (runs/tracking): score names contain the stage
    return ExternalRecord(
        tool="wandb",
        name=folder.name,
        model=str(_first(config, "model.name", "model", "model_name_or_path", "model_name") or ""),
        method=str(_first(config, "method.name", "method", "peft_type", *_of_adapter("peft_type")) or ""),
        task=str(_first(config, "task.name", "task", "dataset") or ""),
        rank=_whole(rank),
        seed=_whole(seed),
        lr=number(_first(config, "train.lr", "lr", "learning_rate")),
        scores={
            key: value
            for key, value in sorted(numbers.items())
            if (key.partition("/")[0] in STAGES if own else not key.startswith("_"))
        },
        train_seconds=next((numbers[key] for key in _SECONDS if key in numbers), None),
        memory_bytes=_whole(numbers.get("cost/peak_bytes")),
        trainable=_whole(numbers.get("parameters/trainable")),
        status=str(summary.get("status", "")),
        origin=origin(source),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _of_adapter(key: str) -> tuple[str, str]:
    """The two config keys where trainers log a peft option: with and without peft's adapter name `default`."""
    return f"peft_config.{key}", f"peft_config.default.{key}"


def _contents(folder: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """(the file that was read, summary, configuration)."""
    summary_path, config_path = folder / "files" / "wandb-summary.json", folder / "files" / "config.yaml"
    logs = sorted(folder.glob("*.wandb"))
    if not summary_path.is_file():
        if not logs:
            raise Unavailable(f"{folder}: neither files/wandb-summary.json nor a .wandb file")
        return (logs[0], *wandb_log.read(logs[0]))
    try:
        summary = read_json(summary_path, EXTERNAL)
        loaded = read_yaml(config_path, EXTERNAL) if config_path.is_file() else {}
        config = {key: value.get("value", value) if isinstance(value, dict) else value for key, value in loaded.items()}
    except AttributeError as error:
        raise DamagedFile(f"{folder}: its summary or config cannot be read ({error}).") from None
    return summary_path, summary, config


def run_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a W&B run, else the W&B runs in it."""
    if (folder / "files").is_dir():
        return [folder]
    return sorted(path for path in folder.glob("*run-*") if (path / "files").is_dir())


def _first(config: dict[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) not in (None, {})), None)
