"""Any tuner of the peft library (the distribution `peft`) that changes layers of a model.

    method=peft method.type=vera method.options={r: 256}

`type` is peft's name of the tuner in lower case; `options` are keys of that tuner's configuration class. Which types
work is decided by inspecting the tuner class, not by a list: the class must replace layers of the model by its own and
must not override the forward pass of the whole model. peft builds, names and saves those layers; data, order,
optimizer, tuning, records and tables are those of every other method.

`method=peft method.type=lora` trains the same adapter as `method=lora` (tests/methods/test_peft_method.py).
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from pydantic import Field, model_validator

from sdsbench.core.errors import ConfigError, Problem, Refused
from sdsbench.core.lazy import torch
from sdsbench.core.spelling import nearest
from sdsbench.methods.base import Method, MethodConfig, register

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module

TARGETS = "target_modules"  # the peft option that corresponds to method.targets
IMPORTED = "megatron"  # option prefix: peft would import the named module, but a configuration runs no code
ADAPTER = "default"  # peft's own name of a model's only adapter


class PeftMethodConfig(MethodConfig):
    name: str = "peft"
    type: str = Field("lora", description="peft's name of the tuner, in lower case")
    options: dict[str, Any] = Field(
        {}, description="keys of peft's configuration class; stored as that class holds them, without defaults"
    )

    @model_validator(mode="before")
    @classmethod
    def _in_normal_form(cls, tree: Any) -> Any:
        """Convert equal options to one form, so that equal runs get one name: null becomes {}, 8.0 becomes 8 where peft
        declares an int. Options that peft refuses are kept unchanged; `problems` reports them."""
        if not isinstance(tree, Mapping) or not isinstance(tree.get("type", "lora"), str):
            return tree
        kind, options = str(tree.get("type", "lora")).lower(), tree.get("options") or {}
        if isinstance(options, Mapping) and not any(_objections(kind, options)):
            options = _normal_form(kind, options)
        return {**tree, "type": kind, "options": options}

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from _objections(self.type, self.options)


@register("peft", PeftMethodConfig)
class Peft(Method):
    config: PeftMethodConfig
    form_titles: ClassVar[Mapping[str, str]] = {"method.type=": "peft {}", "method.options.r=": ", r {}"}
    packages = ("peft",)

    def wraps_layers(self) -> bool:
        return False

    def unfreeze(self, model: Module, targets: Mapping[str, Linear], seed: int) -> None:
        """Let peft put its layers into the model, in place of `targets` or of options.target_modules."""
        import peft

        from sdsbench.methods.named_tensors import version  # imports torch, which a configuration does not need

        options = dict(self.config.options)
        if TARGETS not in options:
            self._check_kind(model)
            options[TARGETS] = _short(list(targets), [name for name, _ in model.named_modules()])
        weights = [(weight, version(weight)) for weight in model.parameters()]
        try:
            with warnings.catch_warnings():  # peft reads attributes that transformers has renamed
                warnings.simplefilter("ignore", FutureWarning)
                self.adapted = peft.get_peft_model(model, _configuration(self.config.type, options))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever peft objects to, in its own words
            if isinstance(error, NotImplementedError) and weights[0][0].is_meta:
                raise  # torch objects: nothing can be counted without values (runs/memory.py), and a run has them
            raise ConfigError([_objection(self.config.type, self.config.options, error)]) from error
        self.rewrites_base = any(version(weight) != before for weight, before in weights)
        self._check_training()

    def fold(self, model: Module) -> Module:
        from peft.tuners.tuners_utils import BaseTunerLayer

        try:
            plain = self.adapted.merge_and_unload()
        except Exception as error:
            raise self._unmergeable(f"{type(error).__name__}: {error}") from error
        if any(isinstance(module, BaseTunerLayer) for module in plain.modules()):
            raise self._unmergeable("layers of it are left")
        return plain

    def peft_adapter(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Raises Refused if creating the adapter changed base weights (as lora with init_lora_weights=pissa does). peft
        would repeat that change when it loads the adapter, with other random draws, and so produce a different model
        (seen with pissa_niter_4)."""
        import peft

        if self.rewrites_base:
            raise Refused(
                f"peft's {self.config.type} with options {self.config.options} rewrites weights of the base, which no "
                "adapter folder holds: export it with --form merged"
            )
        tensors = peft.get_peft_model_state_dict(self.adapted, save_embedding_layers=False)
        return _plain(self.adapted.peft_config[ADAPTER].to_dict()), dict(tensors)

    def _unmergeable(self, why: str) -> Refused:
        return Refused(f"peft's {self.config.type} cannot become plain weights ({why}): export it with --form peft")

    def _check_kind(self, model: Any) -> None:
        """Raises ConfigError if peft applies this type to layers other than the linear ones that `targets` names."""
        tuner = _tuner(self.config.type)
        kind = getattr(model.config, "model_type", None)
        endings = getattr(tuner, "target_module_mapping", {}).get(kind) or ()
        meant = [module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] in endings]
        if meant and not any(isinstance(module, torch.nn.Linear) for module in meant):
            kinds = ", ".join(sorted({type(module).__name__ for module in meant}))
            accepted = "target_modules named, or null for peft's own choice"
            advice = f"peft means {self.config.type} for {kinds}, and method.targets names linear layers."
            raise ConfigError([Problem("method.options", self.config.options, accepted, advice)])

    def _check_training(self) -> None:
        """Raises ConfigError if the tuner needs calls that this training loop does not make; it would train
        incorrectly.

        peft expects its users to add extra loss terms (tuner methods whose names end in `_loss`) and, with `use_asa`,
        to call `update_and_allocate` after each step, which changes ranks or masks.
        """
        tuner = self.adapted.base_model
        losses = [name for name in dir(type(tuner)) if name.endswith("_loss")]
        needed = [name for name in losses if torch.is_tensor(getattr(tuner, name)())]
        if hasattr(tuner, "update_and_allocate") and getattr(self.adapted.peft_config[ADAPTER], "use_asa", False):
            needed.append("update_and_allocate")
        if needed:
            accepted = "options with which the loss and the steps are those of every other method"
            advice = (
                f"This training does not call what they need: {', '.join(needed)} of peft's {type(tuner).__name__}."
            )
            raise ConfigError([Problem("method.options", self.config.options, accepted, advice)])


@cache
def peft_types() -> dict[str, str | None]:
    """Every type of the installed peft in lower case, with the reason why it cannot be used here (None: it can)."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return {str(kind.value).lower(): _unusable(tuner) for kind, tuner in sorted(PEFT_TYPE_TO_TUNER_MAPPING.items())}


def _unusable(tuner: Any) -> str | None:
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

    if not issubclass(tuner, BaseTuner):
        return f"it changes no layers of the model: peft's {tuner.__name__} adds something beside them"
    if not issubclass(getattr(tuner, "tuner_layer_cls", object), BaseTunerLayer):
        return f"peft's {tuner.__name__} puts no layers of its own in place of the model's"
    if tuner.forward is not BaseTuner.forward:
        return f"peft's {tuner.__name__} changes the forward pass of the whole model, its inputs or its loss"
    return None


def _short(targets: list[str], names: list[str]) -> list[str]:
    """Last parts of the target names (`q_proj`) if they match exactly the targets, else the full dotted names."""
    endings = sorted({name.rsplit(".", 1)[-1] for name in targets})
    meant = [name for name in names if name.rsplit(".", 1)[-1] in endings]
    return endings if meant == targets else targets


def _tuner(name: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return PEFT_TYPE_TO_TUNER_MAPPING[name.upper()]


def _class(name: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return PEFT_TYPE_TO_CONFIG_MAPPING[name.upper()]


def _fields(name: str) -> dict[str, dataclasses.Field[Any]]:
    """The options specific to this type. Fields common to all peft configurations (type, task, base model) are set by
    the run."""
    from peft import PeftConfig

    common = {item.name for item in dataclasses.fields(PeftConfig)}
    return {item.name: item for item in dataclasses.fields(_class(name)) if item.init and item.name not in common}


def _objections(kind: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield one Problem for each fault of a type and its options."""
    if importlib.util.find_spec("peft") is None:
        yield Problem("method.name", "peft", "an installed peft", "Run: pip install 'sdsbench[peft]'")
        return
    working = [name for name, reason in peft_types().items() if reason is None]
    reason = peft_types().get(kind, "peft has no such type")
    if reason is not None:
        advice = " ".join(filter(None, (f"{reason[0].upper()}{reason[1:]}.", nearest(kind, working))))
        yield Problem("method.type", kind, ", ".join(working), advice)
        return
    found = list(_unknown(kind, options))
    yield from found
    if not found:
        try:
            _configuration(kind, options)
        except Exception as error:  # whatever peft objects to, in its own words
            yield _objection(kind, options, error)


def _unknown(name: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    known = [key for key in _fields(name) if not key.startswith(IMPORTED)]
    for key in sorted(options.keys() - set(known)):
        yield Problem(f"method.options.{key}", options[key], ", ".join(known), nearest(key, known))


def _configuration(name: str, options: Mapping[str, Any]) -> Any:
    """peft's configuration object; raises whatever peft raises."""
    hints = get_type_hints(_class(name))
    return _class(name)(**{key: _typed(hints[key], value) for key, value in options.items()})


def _typed(hint: Any, value: Any) -> Any:
    """The value converted to the type that peft declares if the two are equal (8.0 -> 8 for an int); else unchanged."""
    from pydantic import TypeAdapter, ValidationError

    try:
        typed = TypeAdapter(hint).validate_python(value)
    except ValidationError:
        return value
    return typed if typed == value else value


def _normal_form(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as plain values, as peft's configuration holds them, without those that are its defaults.

    So a run gets the same name whether its defaults are omitted, null or written out.
    """
    held = _configuration(name, options)
    normal = {}
    for key in sorted(options):
        value, default = _plain(getattr(held, key)), _default(_fields(name)[key])
        differs = value != default or isinstance(value, bool) != isinstance(default, bool)
        if differs or key == TARGETS:  # null: peft chooses; key absent: method.targets
            normal[key] = value
    return normal


def _default(item: dataclasses.Field[Any]) -> Any:
    made = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return _plain(made)


def _plain(value: Any) -> Any:
    """Convert to JSON values: sets to sorted lists, enums to their values, dataclasses to dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(part) for part in value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _objection(kind: str, options: Mapping[str, Any], error: Exception) -> Problem:
    message = " ".join(str(error).split())[:400]
    accepted = f"what peft accepts for {kind}"
    return Problem("method.options", dict(options), accepted, f"peft says: {type(error).__name__}: {message}")
