"""Download the weights and data of a plan's runs into this machine's caches before the runs start.

SLURM's compute nodes often have no network. `fetch` calls the same functions that runs use for loading, so that runs
find exactly what it has downloaded.
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
from sdsbench.models.location import weights_of
from sdsbench.models.model_config import ModelConfig
from sdsbench.models.model_folder import LOADED
from sdsbench.runs.data_source import needs
from sdsbench.sweeps.placing import GROUP_SIZE, as_words
from sdsbench.sweeps.plan import Plan

HUB = "hub"
_READS_NOTHING = ("seed", "seeds", "method", "train", "probe")  # sections that do not affect which files a run reads


@dataclass(frozen=True)
class Need:
    """Something that runs read: a model's weights, or a split of a data set."""

    text: str
    source: str
    bring: Callable[[], object]  # downloads it, so that runs need no network; raises Unavailable
    hub_bytes: Callable[[], int]  # size of its repository's files according to the hub
    repository: tuple[object, ...]  # equal for needs whose files lie in one repository of the hub, at one revision


def needs_of(plan: Plan, placing: Mapping[str, Any]) -> Iterator[Need]:
    """Everything that the plan's runs read, without repetitions."""
    placing = {key: value for key, value in placing.items() if key != GROUP_SIZE}  # a key of workers, not of runs
    known: set[object] = set()
    alike: dict[object, str] = {}  # one run for each set of files that runs read
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
            repository = "model", model.location, model.revision
            yield Need(text, model.source, partial(weights_of, model), partial(_model_bytes, model), repository)
        for data_set, split in needs(config) if config.data.source != "embedded" else ():  # generated in the run
            which = data_set.name, split, config.data.source, config.data.root
            if which not in known:
                known.add(which)
                text = f"data {data_set.name} {split} ({config.data.source})"
                rows = partial(sources.load, data_set.name, split, config.data)
                repository = "data", data_set.hub_id, data_set.revision
                yield Need(text, config.data.source, rows, partial(_data_bytes, data_set), repository)


def fetch(plan: Plan, placing: Mapping[str, Any], log: Callable[[str], None]) -> None:
    """Download everything and log each part. Raises Unavailable with every part that is not available."""
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
    """Log the size of the downloads and the free disk space. Raises Unavailable if the hub does not answer.

    The hub gives the size of a whole repository, so the splits and tasks that it holds are logged together.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    together: dict[tuple[object, ...], list[Need]] = {}
    for need in needs_of(plan, placing):
        if need.source == HUB:
            together.setdefault(need.repository, []).append(need)
    if not together:
        return
    wanted = {", ".join(need.text for need in needs): needs[0].hub_bytes() for needs in together.values()}
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    for text, size in wanted.items():
        log(f"{text}: {two_digits(size / 1e9)} GB on the hub")
    total, room = (two_digits(size / 1e9) for size in (sum(wanted.values()), free))
    log(f"{total} GB in all, less what the hub's cache has already; {room} GB free on its disk")


def require_downloaded(plan: Plan, placing: Mapping[str, Any]) -> None:
    """Raises Unavailable if a run of the plan would not find its weights or data without a network."""
    if not any(need.source == HUB for need in needs_of(plan, placing)):
        fetch(plan, placing, lambda _: None)
        return
    # The hub's libraries read the offline setting at import, so this check needs a process of its own.
    words = as_words({key: value for key, value in placing.items() if key.startswith("data.")})
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
    return sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in LOADED))


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
