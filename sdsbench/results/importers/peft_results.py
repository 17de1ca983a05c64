"""Result files of peft's method_comparison (run_info, train_info, meta_info), such as MetaMathQA/results/*.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdsbench.core.errors import DamagedFile
from sdsbench.core.limits import EXTERNAL
from sdsbench.core.reading import read_json
from sdsbench.results.importers.external import ExternalRecord, number, origin


def read(path: Path) -> ExternalRecord:
    """Read one result file. Its train time (seconds) includes intermediate evaluations and the final test, as in peft.

    Raises DamagedFile if the file is no such result.
    """
    try:
        tree: dict[str, Any] = read_json(path, EXTERNAL)
        run, train, meta = tree["run_info"], tree["train_info"], tree["meta_info"]
        config, adapter = run["train_config"], run["peft_config"] or {}
        name = run["experiment_name"]
        scores = _last_numbers(train["metrics"])
    except (KeyError, TypeError) as error:
        raise DamagedFile(f"{path}: not a result of peft's method_comparison ({error!r}).") from None
    memory = number(train.get("cuda_memory_max", train.get("accelerator_memory_max")))
    trainable = number(train.get("num_trainable_params"))
    return ExternalRecord(
        tool="peft method_comparison",
        name=name,
        model=str(config.get("model_id", "")),
        method=_method(adapter),
        task=_task(path, meta),
        rank=_rank(adapter),
        seed=config.get("seed"),
        lr=number((config.get("optimizer_kwargs") or {}).get("lr")),
        scores=scores,
        train_seconds=number(train.get("train_time")),
        memory_bytes=None if memory is None else int(memory),
        trainable=None if trainable is None else int(trainable),
        status=str(train.get("status", "")),
        made_with=_made_with(meta),
        origin=origin(path),
    )


_RANKS = ("r", "rank", "lora_r", "init_r", "vera_r")
"""The names that peft's tuners use for their rank."""


def _method(adapter: dict[str, Any]) -> str:
    """The tuner's peft name with the options that make it another method: `LORA (use_dora, pissa)`."""
    switches = [key for key in sorted(adapter) if key.startswith("use_") and adapter[key] is True]
    start = adapter.get("init_lora_weights")
    switches += [start] if isinstance(start, str) else []
    name = str(adapter.get("peft_type") or "full fine-tuning")
    return f"{name} ({', '.join(switches)})" if switches else name


def _rank(adapter: dict[str, Any]) -> int | None:
    found = (adapter.get(key) for key in _RANKS)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def files(source: Path) -> list[Path]:
    """The result files of a folder, or `source` itself if it is a file."""
    return sorted(source.glob("*.json")) if source.is_dir() else [source]


def _last_numbers(lines: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of each test metric and of the loss."""
    found: dict[str, float] = {}
    for line in lines:
        for key, value in line.items():
            usable = number(value)
            if usable is not None and (key.startswith("test ") or key == "train loss"):
                found[key] = usable
    return found


def _task(path: Path, meta: dict[str, Any]) -> str:
    data = ", ".join(sorted(meta.get("dataset_info") or {}))
    return data or path.parent.parent.name


def _made_with(meta: dict[str, Any]) -> str:
    packages = meta.get("package_info") or {}
    parts = [
        f"{name} {packages[f'{name}-version']}"
        for name in ("peft", "transformers", "torch")
        if f"{name}-version" in packages
    ]
    gpu = (meta.get("system_info") or {}).get("gpu")
    return ", ".join([*parts, *([gpu] if gpu else [])])
