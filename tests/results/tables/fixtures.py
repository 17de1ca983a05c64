"""Hand-made records and run folders, from which tests build tables without training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from sdsbench.core import samples as samples_file
from sdsbench.core.record import (
    DataUsed,
    Failure,
    Losses,
    Memory,
    Parameters,
    Provenance,
    Record,
    Score,
    Seconds,
    Tokens,
    Tuning,
    Weights,
)
from sdsbench.core.run_folder import write_record
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.definitions import get
from sdsbench.results.tables.definitions.grid import grid
from sdsbench.results.tables.runs import load


def make_record(
    method: str = "lora",
    seed: int = 0,
    scores: Mapping[str, float] | None = None,
    *,
    model: str = "micro",
    task: str = "gsm8k",
    rank: int | None = 8,
    lr: float = 1e-3,
    protocol: str = "quick",
    status: Any = "done",
    stage: Any = "trained",
    scorer: str = "flexible",
    version: int = 1,
    n: int = 200,
    source: Any = "embedded",
    fingerprint: str = "d0",
    weights: str = "w0",
    code_hash: str = "c0",
    dirty: bool = False,
    seconds: Seconds | None = None,
    parameters: Parameters | None = None,
    facts: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    tuning: Any = None,
    family: str = "decoder",
    torch: str = "2.13.0",
    device: str = "cpu: test",
    dtype: str = "float32",
    memory: Memory | None = None,
) -> Record:
    """A record as a run would write it; a test gives only the values that it is about."""
    tree = {
        "model": {"name": model, "family": family},
        "method": {"name": method, "rank": rank} | ({"variant": "sds"} if method == "sds_lora" else {}),
        "task": {"name": task},
        "train": {"lr": lr, "epochs": 1.0, "batch_size": 8},
        "seed": seed,
        "seeds": {"data": seed, "init": seed, "dropout": seed},
        **(config or {}),
    }
    identity = json.dumps(
        [tree, status, protocol, source, code_hash, version, fingerprint, weights, str(tuning), torch, device],
        sort_keys=True,
    )
    done = status == "done"
    return Record(
        run_id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        status=status,
        model=model,
        method=method,
        task=task,
        train_set=task,
        protocol=protocol,
        seed=seed,
        rank=rank,
        alpha=None if rank is None else 16.0,
        lr=lr,
        config=tree,
        scores=[
            Score(evaluation=name, version=version, scorer=scorer, stage=stage, value=value, n=n, headline=True)
            for name, value in (scores or {}).items()
        ],
        losses=Losses(first=2.0, last=0.5, tail_mean=0.6, steps=20) if done else None,
        tokens=Tokens(trained=1000, targets=400, padding_share=0.1) if done else None,
        seconds=seconds or Seconds(load=1.0, init=0.1, train=20.0, eval=4.0),
        memory=memory or Memory(peak_bytes=10**9, kind="rss"),
        parameters=parameters or Parameters(trainable=1000 * (rank or 100), adapter=1000 * (rank or 100), total=10**6),
        facts=dict(facts or {}),
        provenance=Provenance(
            packages={"torch": torch},
            python="3.11",
            git_commit="abc1234",
            uncommitted=["sdsbench.training.loop"] if dirty else [],
            code={"core": code_hash},
            device=device,
            device_kind=device.split(":")[0],
            dtype=dtype,
            threads=1,
            data=[
                DataUsed(dataset=task, split=split, source=source, rows=n, fingerprint=fingerprint + split)
                for split in ("train", "test")
            ],
            weights=Weights(model=model, source="package:sdsbench/synthetic/micro", fingerprint=weights),
        ),
        tuning=tuning,
        failure=None if done else Failure(type=status, message=f"{status} on purpose", step=3),
    )


def write_run(
    root: Path,
    record: Record,
    samples: Mapping[str, Sequence[dict[str, Any]]] | None = None,
    steps: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write a run folder below `root`."""
    with mock.patch("os.fsync"):  # tests write hundreds of small files
        return _write(root, record, samples, steps)


def _write(root: Path, record: Record, samples: Any, steps: Any) -> Path:
    folder = root / record.run_id
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, record)
    (folder / "config.yaml").write_text("# resolved configuration\n")
    for evaluation, rows in (samples or {}).items():
        samples_file.write(
            samples_file.path_of(folder, evaluation, record.scores[0].stage if record.scores else "trained"), rows
        )
    if steps is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    return folder


def tuned(chosen: float, grid: Sequence[float], seeds: Sequence[int] = (100,), **more: Any) -> Tuning:
    """A record of how a run's learning rate was chosen from a grid."""
    return Tuning(
        key="train.lr",
        grid=list(grid),
        budget=len(grid) * len(seeds),
        seeds=list(seeds),
        chosen=chosen,
        scores=[0.6 if value == chosen else 0.5 for value in grid],
        evaluation="gsm8k",
        scorer="flexible",
        **more,
    )


def make_samples(correct: Sequence[bool], scorer: str = "flexible") -> list[dict[str, Any]]:
    """Answers to `2 + i`, right where `correct` is true."""
    return [
        {
            "index": i,
            "id": f"q{i}",
            "prompt": f"What is 2 + {i}?",
            "target": str(2 + i),
            "response": f"The answer is: {2 + i if right else 0}",
            "scores": {scorer: float(right)},
        }
        for i, right in enumerate(correct)
    ]


def built(name: str, root: Path) -> Built:
    """A named table of the runs in a folder; the rows and columns of `grid` are derived from these runs."""
    runs, damaged = load(root)
    return build(get(name) if name != "grid" else grid(runs), runs, damaged)
