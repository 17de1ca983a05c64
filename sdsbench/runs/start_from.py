"""Start a run from the trained tensors of another run (`start_from`): its adapter and its head, except the label layer.

LoRA-XS's code starts RTE, MRPC and STS-B from MNLI in this way (main_glue_from_pretrained.py). The label layer is left
out because its labels differ. The method's own initialization is skipped, and the optimizer state starts empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdsbench.core.containment import require_plain
from sdsbench.core.errors import Refused, Unavailable
from sdsbench.core.file_hash import content_hash
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.runs.configuration.schema import RunConfig

if TYPE_CHECKING:
    from sdsbench.models.load import LoadedModel
    from sdsbench.training.state import TrainState


def adapter_hash(config: RunConfig) -> str | None:
    """sha256 of the tensors that the run starts from; None if it starts from the base model.

    Raises Unavailable if no finished run with that id saved its tensors.
    """
    return None if config.start_from is None else content_hash(_saved(config)[0] / "adapter.safetensors")


def take_over(config: RunConfig, loaded: LoadedModel, state: TrainState) -> None:
    """Copy the tensors of the run `start_from` into the model and the optimizer's masters.

    Raises Unavailable like `adapter_hash`, Refused if that run has other base weights, layers or method settings.
    """
    from sdsbench.methods.export import load_adapter
    from sdsbench.methods.named_tensors import put_tensors
    from sdsbench.models.head import label_parameters

    folder, record = _saved(config)
    provenance = record.provenance
    if provenance is None or provenance.weights.fingerprint != loaded.weights.fingerprint:
        raise Refused(
            f"start_from={config.start_from}: accepted: a run on the base weights of model={config.model.name}"
        )
    try:
        others = load_adapter(folder, state.layers, state.method)
    except Refused as error:
        raise Refused(f"start_from={config.start_from}: accepted: a run with the same method.*: {error}") from None
    labels = label_parameters(loaded.model)
    put_tensors(loaded.model, {name: tensor for name, tensor in others.items() if name not in labels})
    state.optimizer.refresh_masters()


def _saved(config: RunConfig) -> tuple[Path, Record]:
    """(folder of the tensors saved by the run `start_from`, its record)."""
    folder = Path(config.output_root) / str(config.start_from)
    require_plain(folder)
    path = folder / "record.json"
    record = read_record(path) if path.is_file() else None
    if record is None or record.status != "done" or not (folder / "adapter").is_dir():
        raise Unavailable(
            f"start_from={config.start_from}: accepted: the id of a finished run in output_root={config.output_root} "
            "that saved what it trained (train.save=adapter, or all)"
        )
    return folder / "adapter", record
