"""Save adapters: in our own exact format, and as a standard LoRA that peft loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sdsbench.core.errors import DamagedFile, Refused, SdsbenchError
from sdsbench.core.files import write_atomic
from sdsbench.core.limits import RECORD
from sdsbench.core.reading import read_json, require_file
from sdsbench.methods.tensor_file import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.base import Layers, Method

FORMAT = 1
OTHERS = "other."
"""Prefix of tensors outside adapted layers (a classifier head, or all of full fine-tuning)."""


def save_adapter(folder: Path, layers: Layers, method: Method, others: Mapping[str, Tensor] | None = None) -> None:
    """Write everything that `load_adapter` needs to give the same outputs again: adapter.safetensors, adapter.json.

    `others` are trained tensors outside the layers, by name.
    """
    tensors = {
        f"{name}.{key}": tensor for name, layer in layers.items() for key, tensor in layer.method_tensors().items()
    }
    tensors |= {OTHERS + name: tensor for name, tensor in (others or {}).items()}
    description = {
        "format": FORMAT,
        "method": method.name,
        "config": method.config.model_dump(),
        "state": method.state(),
        "layers": list(layers),
    }
    save_tensors(folder / "adapter.safetensors", tensors)
    _write_json(folder / "adapter.json", description)


def load_adapter(folder: Path, layers: Layers, method: Method) -> dict[str, Tensor]:
    """Put saved tensors and state back into freshly attached layers, in place; returns the `others`.

    Raises Refused if the adapter belongs to another method, configuration or set of layers, DamagedFile if a file is
    missing or unreadable.
    """
    try:
        return _put_back(folder, layers, method)
    except SdsbenchError:
        raise
    except Exception as error:  # a damaged file can cause any exception
        raise DamagedFile(
            f"adapter in {folder.name}/ cannot be read ({type(error).__name__}: {str(error)[:300]}): train again with "
            "force=true"
        ) from error


def _put_back(folder: Path, layers: Layers, method: Method) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    description = read_json(folder / "adapter.json", RECORD)
    require_file(folder / "adapter.safetensors")
    tensors = load_file(folder / "adapter.safetensors")
    _check_same(description, layers, method)
    method.load_state(description["state"])
    others = {key.removeprefix(OTHERS): tensor for key, tensor in tensors.items() if key.startswith(OTHERS)}
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith(OTHERS)}
    for name, layer in layers.items():
        places = layer.method_tensors(training_state=True)
        saved = {key: rest.pop(f"{name}.{key}") for key in places if f"{name}.{key}" in rest}
        _check_shapes(name, saved, places)
        method.restore(layer, saved)
    for key, tensor in rest.items():
        raise DamagedFile(f"saved tensor {key} of shape {tuple(tensor.shape)} has no place in the model")
    return others


def _check_same(description: Mapping[str, Any], layers: Layers, method: Method) -> None:
    expected = {"format": FORMAT, "method": method.name, "config": method.config.model_dump(), "layers": list(layers)}
    for key, value in expected.items():
        if description.get(key) != value:
            raise Refused(f"the saved adapter has another {key}: {description.get(key)!r} instead of {value!r}")


def _check_shapes(layer: str, saved: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for key, tensor in saved.items():
        if tensor.shape != expected[key].shape:
            raise DamagedFile(f"saved tensor {layer}.{key} of shape {tuple(tensor.shape)} has no place in the model")


def export_peft(
    folder: Path,
    layers: Layers,
    method: Method,
    base_model: str | None = None,
    revision: str | None = None,
    task_type: str | None = None,
    others: Mapping[str, Tensor] | None = None,
    modules: Sequence[str] = (),
) -> None:
    """Write an adapter for the untouched base, which peft.PeftModel.from_pretrained loads.

    Adapted layers become a standard LoRA: SDS-LoRA and PiSSA of rank 2r, LoRA-XS and LoRA-SB with R folded into a
    factor, DoRA natively. Methods with their own layers provide the export in `Method.peft_adapter`. `others` are
    trained tensors outside the method's, by parameter name, and `modules` the modules that hold them; `base_model` and
    `revision` are what peft loads the base by; `task_type` is peft's (CAUSAL_LM, SEQ_CLS, ...). Raises Refused for a
    method without such a form, such as full fine-tuning.
    """
    found = as_lora(layers, method) if layers else method.peft_adapter()
    if found is None:
        raise Refused(f"method={method.name} has no adapter to export: use the merged model folder instead")
    config, tensors = found
    tensors |= {f"base_model.model.{name}": tensor for name, tensor in (others or {}).items()}
    saved = {*(config.get("modules_to_save") or ()), *modules}
    config |= {
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
        "modules_to_save": sorted(saved) or None,
    }
    save_tensors(folder / "adapter_model.safetensors", tensors)
    _write_json(folder / "adapter_config.json", config)


def as_lora(layers: Layers, method: Method) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(adapter_config.json, tensors) of adapted layers as one standard LoRA."""
    tensors = {
        f"base_model.model.{name}.{key}": tensor
        for name, layer in layers.items()
        for key, tensor in method.peft_tensors(layer).items()
    }
    rank = next(tensor.shape[0] for key, tensor in tensors.items() if key.endswith("lora_A.weight"))
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": method.scale() * rank,
        "lora_dropout": method.config.dropout,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": list(layers),
    } | dict(method.peft_options)
    return config, tensors


def merge_drift(layers: Layers, dtype: torch.dtype) -> dict[str, float]:
    """Measure how merging into `dtype` changes the update dW.

    `drift_*`: |round(W) - W|_F / |dW|_F, the part of the update that rounding distorts. `unchanged_mean`: share of the
    entries with a nonzero update whose rounded weight is the base's rounded weight, as if they had not been trained.
    Empty without adapted layers, since the updates of other layer classes are not accessible.
    """
    if not layers:
        return {}
    drifts, unchanged = [], []
    for layer in layers.values():
        with torch.no_grad():
            base_mn, merged_mn = layer.weight.detach().float(), layer.method.merged_weight(layer)
            rounded_mn = merged_mn.to(dtype).float()
            delta_mn = merged_mn - base_mn
            moved_mn = delta_mn != 0
            drifts.append((rounded_mn - merged_mn).norm() / delta_mn.norm().clamp_min(torch.finfo(torch.float32).tiny))
            kept_mn = moved_mn & (rounded_mn == base_mn.to(dtype).float())
            unchanged.append(kept_mn.sum() / moved_mn.sum().clamp_min(1))
    return {
        "drift_mean": float(torch.stack(drifts).mean()),
        "drift_max": float(torch.stack(drifts).max()),
        "unchanged_mean": float(torch.stack(unchanged).mean()),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
