"""What the runs of a plan read, put into this machine's caches before they start: weights and data.

SLURM's compute nodes have no network. `fetch` goes through the very functions that runs load with, so that what it
brought is what they find.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdsbench.core.clock import two_digits
from sdsbench.core.errors import Unavailable
from sdsbench.data import catalogue, sources
from sdsbench.models.location import HUB_FILES, weights_of
from sdsbench.models.model_config import ModelConfig
from sdsbench.runs.data_source import needs
from sdsbench.sweeps.placing import GROUP_SIZE
from sdsbench.sweeps.plan import Plan

HUB = "hub"
_READS_NOTHING = ("seed", "seeds", "method", "train", "probe")  # sections that do not say what a run reads


@dataclass(frozen=True)
class Need:
    """The weights of a model, or a split of a data set."""

    text: str
    source: str
    bring: Callable[[], object]  # raises Unavailable; where it returns, a run finds the same without a network
    hub_bytes: Callable[[], int]  # what the hub says that its files hold


def needs_of(plan: Plan, placing: Mapping[str, Any]) -> Iterator[Need]:
    """Everything that the plan's runs read, once each."""
    placing = {key: value for key, value in placing.items() if key != GROUP_SIZE}  # of workers, not of a run
    known: set[object] = set()
    alike: dict[object, str] = {}  # one run of those that differ in nothing that says what they read
    for identity, run in plan.manifest.runs.items():
        point = tuple(item for item in run.point.items() if item[0].partition(".")[0] not in _READS_NOTHING)
        alike.setdefault(point, identity)
    for identity in alike.values():
        config = plan.configuration(identity, placing)
        model = config.model
        if model not in known:
            known.add(model)
            where = f"{model.source} {model.location}" + (f" at {model.revision}" if model.revision else "")
            text = f"model {model.name} ({where})"
            yield Need(text, model.source, partial(weights_of, model), partial(_model_bytes, model))
        for data_set, split in needs(config) if config.data.source != "embedded" else ():  # made where it is needed
            which = data_set.name, split, config.data.source, config.data.root
            if which not in known:
                known.add(which)
                text = f"data {data_set.name} {split} ({config.data.source})"
                rows = partial(sources.load, data_set.name, split, config.data)
                yield Need(text, config.data.source, rows, partial(_data_bytes, data_set))


def fetch(plan: Plan, placing: Mapping[str, Any], log: Callable[[str], None]) -> None:
    """Bring everything, and name each. Raises Unavailable with every part that cannot be had."""
    missing: list[str] = []
    for need in needs_of(plan, placing):
        try:
            need.bring()
        except Unavailable as error:
            missing.append(f"{need.text}: {error}")
        else:
            log(f"at hand: {need.text}")
    if missing:
        raise Unavailable("\n".join(missing))


def announce(plan: Plan, placing: Mapping[str, Any], log: Callable[[str], None]) -> None:
    """Say how much the hub would send, and what is free. Raises Unavailable where the hub does not answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    wanted = {need.text: need.hub_bytes() for need in needs_of(plan, placing) if need.source == HUB}
    if not wanted:
        return
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    for text, size in wanted.items():
        log(f"{text}: {two_digits(size / 1e9)} GB on the hub")
    total, room = (two_digits(size / 1e9) for size in (sum(wanted.values()), free))
    log(f"{total} GB in all, less what the hub's cache has already; {room} GB free on its disk")


def require_at_hand(plan: Plan, placing: Mapping[str, Any]) -> None:
    """Raises Unavailable where a run of the plan would not find its weights or data without a network."""
    if not any(need.source == HUB for need in needs_of(plan, placing)):
        fetch(plan, placing, lambda _: None)
        return
    # The hub's libraries decide at their import whether they are offline: so it is asked in a process of its own.
    words = [f"{key}={value}" for key, value in placing.items() if key == "data.root" and value]
    command = [sys.executable, "-m", "sdsbench", "fetch", str(plan.folder), *words]
    done = subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    if done.returncode:
        reasons = done.stderr.removeprefix("sdsbench: ").strip()
        raise Unavailable(
            f"compute nodes have no network, and this is not in the cache:\n{reasons}\n"
            f"Where there is a network, run: sdsbench fetch {plan.folder}"
        )


def _model_bytes(model: ModelConfig) -> int:
    from fnmatch import fnmatch

    from huggingface_hub import HfApi

    info = _asked(lambda: HfApi().model_info(str(model.location), revision=model.revision, files_metadata=True))
    files = info.siblings or []
    return sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in HUB_FILES))


def _data_bytes(data_set: catalogue.DataSet) -> int:
    from huggingface_hub import HfApi

    name, revision = str(data_set.hub_id), data_set.revision
    info = _asked(lambda: HfApi().dataset_info(name, revision=revision, files_metadata=True))
    return sum(file.size or 0 for file in info.siblings or [])


def _asked(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:  # network, authorisation and missing-repository errors have no common class
        raise Unavailable(
            f"the hub does not answer ({type(error).__name__}): check the network and `hf auth login`"
        ) from None
