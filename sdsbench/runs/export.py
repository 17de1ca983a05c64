"""Export a finished run: as a peft adapter folder, as a plain merged model, or as the trained model in memory.

This needs the base weights that the run was trained on, but none of its data.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdsbench.core import plugins, private
from sdsbench.core.containment import require_plain
from sdsbench.core.errors import ConfigError, Problem, Refused, Unavailable
from sdsbench.core.limits import RECORD
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.methods import base as methods
from sdsbench.methods.attach import attach, merged
from sdsbench.methods.base import Layers, Method
from sdsbench.methods.export import export_peft, load_adapter, merge_drift
from sdsbench.methods.named_tensors import named_tensors, put_tensors
from sdsbench.models.conv1d import as_transformers_builds_it, has_conv1d, with_conv1d_
from sdsbench.models.head import head_parameters
from sdsbench.models.load import LoadedModel, load
from sdsbench.models.model_folder import json_of
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.configuration.typed import typed_run
from sdsbench.runs.origin import plugins_in
from sdsbench.tasks import base as tasks

TASK_TYPES = {"decoder": "CAUSAL_LM", "encoder": "SEQ_CLS", "vision": None}
LOCATION = "model.location"
_IMAGES = "preprocessor_config.json"


@dataclass(frozen=True)
class Exported:
    """An exported run, with what is needed to load and serve it."""

    record: Record
    config: RunConfig
    folder: Path
    form: str
    base: str  # hub repository or folder of the base model
    revision: str | None  # commit of the hub repository
    adapter: dict[str, Any] | None  # content of peft's adapter_config.json
    drift: dict[str, float]  # relative change of the update by rounding merged weights to bfloat16 (merge_drift)


def recorded_config(record: Record, run: Path, location: str | None = None) -> RunConfig:
    """Rebuild a run's configuration from its record, importing its plugins; a local model is taken from `location`.

    Where the data lies is not checked. Raises ConfigError for keys or values that this version does not know, Refused
    if a plugin would be imported from the folder `run` itself.
    """
    code = record.provenance.code if record.provenance else {}
    modules = plugins_in(code)
    plugins.refuse_bundled(f"run {record.run_id}", modules, run)
    plugins.load(modules)
    tree = {**record.config, "plugins": modules}
    if location is not None:
        tree["model"] = {**tree["model"], "location": location}
    config, problems = typed_run(tree)
    problems = [problem for problem in problems if not problem.key.startswith("data.")]  # data is not needed
    if config is None or problems:
        raise ConfigError(problems)
    return config


def remember_location(config: RunConfig, run: Path) -> None:
    """Store the folder of a local model in a private file beside the record, since records hold no paths."""
    if config.model.source == "folder":
        private.keep(run, **{LOCATION: str(Path(str(config.model.location)).resolve())})


def _location(record: Record, run: Path) -> str | None:
    """The folder of a local model from `remember_location`'s private file; None for models that are not local.

    Raises Unavailable if the folder is not known or does not exist.
    """
    if record.config["model"]["source"] != "folder":
        return None
    found = private.last(run, LOCATION, RECORD)
    if not isinstance(found, str) or not Path(found).is_dir():
        raise Unavailable(
            f"run {record.run_id} was trained on a model folder, which is not where it was; name it: --model FOLDER"
        )
    return found


def trained_model(config: RunConfig, run: Path) -> tuple[LoadedModel, Method, Layers, dict[str, Any]]:
    """(trained model in fp32, its method, its adapted layers, trained tensors outside of these by name)."""
    loaded = load(config.model, torch.float32, tasks.build(config.task).num_labels)
    method = methods.build(config.method)
    base = named_tensors(loaded.model)
    layers = attach(loaded.model, method, config.seeds.init)
    others = load_adapter(run / "adapter", layers, method)
    put_tensors(loaded.model, others)
    return loaded, method, layers, {name: tensor for name, tensor in others.items() if name in base}


def export(
    run: Path,
    folder: Path,
    form: str | None = None,
    dtype: str = "float32",
    base: str | None = None,
    model: str | None = None,
) -> Exported:
    """Write a finished run's trained weights to `folder` as `form`: "peft" or "merged"; None: peft if possible.

    `base` is the base model's name in the adapter's configuration (default: where it was loaded from); `model` is the
    current folder of a local model. Raises Refused if the method has no such form or the base weights differ from those
    of the training, ConfigError if the run saved nothing, Unavailable without the base model.
    """
    path = run / "record.json"
    if not path.exists():
        raise ConfigError([Problem("run", str(run), "a run folder with record.json and adapter/", "It has no record.")])
    record = read_record(path)
    require_plain(run / "adapter")
    if not (run / "adapter").is_dir():
        raise ConfigError([_nothing_saved(record)])
    config = recorded_config(record, run, model or _location(record, run))
    loaded, method, layers, trained = trained_model(config, run)
    _check_base(record, loaded)
    from_hub = config.model.source == "hub" and base is None
    name = base or (str(config.model.location) if from_hub else str(loaded.folder.resolve()))
    revision = loaded.weights.revision if from_hub else None
    adapter = None
    if form != "merged":
        try:
            _write_peft(folder, config, loaded, method, layers, trained, name, revision)
            form, adapter = "peft", json.loads((folder / "adapter_config.json").read_text())
        except Refused:
            if form == "peft":
                raise
            form = "merged"
    drift = merge_drift(layers, torch.bfloat16)
    if form == "merged":
        write_model(
            folder, merged(method.fold(loaded.model), getattr(torch, dtype)), loaded, config.model.resampled_size
        )
    return Exported(record, config, folder, form, name, revision, adapter, drift)


def _write_peft(
    folder: Path,
    config: RunConfig,
    loaded: LoadedModel,
    method: Method,
    layers: Layers,
    trained: dict[str, Any],
    base: str,
    revision: str | None,
) -> None:
    if not layers:
        _check_opens(method, loaded)
    head = head_parameters(loaded.model) if tasks.build(config.task).num_labels is not None else {}
    # peft saves a head as one top-level module: `classifier`, not `classifier.dense`
    modules = {name.partition(".")[0] if name in head else name.rpartition(".")[0] for name in trained}
    export_peft(folder, layers, method, base, revision, TASK_TYPES[config.model.family], trained, sorted(modules))


def _check_opens(method: Method, loaded: LoadedModel) -> None:
    """Raises Refused if peft cannot load its adapter into a base model of the hub that has Conv1D layers (GPT-2)."""
    found, original = method.peft_adapter(), as_transformers_builds_it(loaded.model)
    if found is None or not has_conv1d(original):
        return
    import peft

    try:
        peft.get_peft_model(original, peft.PeftConfig.from_peft_type(**found[0]))
    except Exception as error:  # peft raises errors of many types
        raise Refused(f"peft would not open this adapter on the base ({error}): export it with --form merged") from None


def write_model(folder: Path, model: torch.nn.Module, loaded: LoadedModel, size: int | None = None) -> None:
    """The plain `model` as a folder, with the tokenizer and image settings of the base that was `loaded`.

    `size`: of the images that it was trained on, where its base had another one.
    """
    with_conv1d_(model).save_pretrained(folder)
    if loaded.tokenizer is not None:
        loaded.tokenizer.save_pretrained(folder)
    if (loaded.folder / _IMAGES).is_file():
        shutil.copy(loaded.folder / _IMAGES, folder / _IMAGES)
        if size is not None and "size" in (facts := json_of(folder / _IMAGES)):
            facts["size"] = {"height": size, "width": size}
            (folder / _IMAGES).write_text(json.dumps(facts, indent=2) + "\n")


def _check_base(record: Record, loaded: LoadedModel) -> None:
    """Raises Refused if the base weights differ from those that the run was trained on."""
    then = record.provenance.weights.fingerprint if record.provenance else None
    if then != loaded.weights.fingerprint:
        raise Refused(
            f"run {record.run_id} was trained on base weights {str(then)[:12]}; those of {loaded.folder.name} are "
            f"{loaded.weights.fingerprint[:12]}. An update of other weights means nothing."
        )


def _nothing_saved(record: Record) -> Problem:
    if record.status != "done":
        return Problem("run", record.run_id, "a finished run", f"It is {record.status}.")
    advice = "Weights of the base that trained are kept with train.save=all, adapters with train.save=adapter."
    return Problem("run", record.run_id, "a run that saved what it trained", advice)
