"""Find every tensor that a model's modules hold, by name, and those that a method added.

A module may keep a tensor as parameter, as buffer (persistent or not), or as a plain attribute, perhaps inside a dict
or list. A tensor that two modules share is listed under its first name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sdsbench.core.errors import DamagedFile

_REGISTERED = ("_parameters", "_buffers", "_modules")


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor by dotted name, each once. Parameters and buffers have the names that torch gives them."""
    found: dict[int, tuple[str, Tensor]] = {}
    for prefix, module in model.named_modules():
        attributes = {key: value for key, value in vars(module).items() if key not in _REGISTERED}
        for part in (module._parameters, module._buffers, attributes):
            for name, tensor in _inside(part, prefix):
                found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def _inside(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _inside(part, f"{name}.{key}" if name else str(key))


class FrozenAdditions:
    """Tensors that a method added to a model and that do not train: frozen projections, masks, indices.

    Checkpoints and saved adapters must hold them beside the trained tensors. `base` are the model's tensors before the
    method was attached.
    """

    def __init__(self, model: nn.Module, base: Mapping[str, Tensor]) -> None:
        self.model = model
        known = {id(tensor) for tensor in base.values()}
        added = {name: tensor for name, tensor in named_tensors(model).items() if id(tensor) not in known}
        self.names = tuple(name for name, tensor in added.items() if not tensor.requires_grad)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, as they are now."""
        if not self.names:
            return {}
        present = named_tensors(self.model)
        return {name: present[name] for name in self.names}


def version(tensor: Tensor) -> tuple[int, int]:
    """(memory address, torch's version counter). At least one changes when the values change, except by writes through
    `tensor.data`."""
    return tensor.data_ptr(), tensor._version


def put_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved values into the model's tensors of these names, in place.

    Raises DamagedFile for a name or a shape that the model does not have.
    """
    present = named_tensors(model)
    for name, tensor in tensors.items():
        if name not in present or present[name].shape != tensor.shape:
            raise DamagedFile(f"saved tensor {name} of shape {tuple(tensor.shape)} has no place in the model")
    with torch.no_grad():
        for name, tensor in tensors.items():
            present[name].copy_(tensor)
