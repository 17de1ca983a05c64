"""The id of a run: the hash of every key that can change its results, and of no other key.

Every key is of one of three kinds. It *names* the run; or it *places* it (PLACES or COSTS in its section: folders,
device, checkpointing); or it is *inert*: without effect, given the run's other values. Sections declare which of their
keys are inert (INERT, or only_where: svd_iterations with svd=exact). Cases that involve two sections are listed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from sdsbench.core.hashing import sha256_of
from sdsbench.core.section import COSTS, PLACES, Mark, Section, mark_of, section_type
from sdsbench.data import catalogue
from sdsbench.methods import base as methods
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks


@dataclass(frozen=True)
class Inert:
    """A key that has no effect on runs for which `holds(config)` is true; `words` states that condition."""

    key: str
    words: str
    holds: Callable[[RunConfig], bool]


def _needs_no_head(config: RunConfig) -> bool:
    return tasks.build(config.task).num_labels is None


def _is_vision(config: RunConfig) -> bool:
    return tasks.build(config.task).kind == "vision"


def _method_steps_alone(config: RunConfig) -> bool:
    """Whether train.optimizer has no effect: the method has an update rule of its own, and no head is trained."""
    return methods.build(config.method).update_rule != "configured" and _needs_no_head(config)


def _reads_no_own_files(config: RunConfig) -> bool:
    name = config.task.train_set
    return name not in catalogue.names() or not catalogue.get(name).own


INERT_ACROSS = (
    *(
        Inert(key, "the task reads no own files", _reads_no_own_files)
        for key in ("data.name", "data.question", "data.test_share")
    ),
    Inert("train.head_lr", "the task needs no new head", _needs_no_head),
    Inert("train.max_length", "the task classifies images", _is_vision),
    Inert("data.validation_rows", "eval.split is test", lambda config: config.eval.split == "test"),
    Inert(
        "train.clip",
        "the method does not adjust gradients",
        lambda config: not methods.lookup(config.method.name)[0].adjusts_gradients(),
    ),
    *(
        Inert(key, "the method makes its own steps and no head is trained", _method_steps_alone)
        for key in ("train.betas", "train.weight_decay", "train.decay_vectors")
    ),
)


def marked(marks: Sequence[Mark], kind: type[Section] = RunConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a section and its subsections that carry one of these marks."""
    for name, field in kind.model_fields.items():
        deeper = section_type(field.annotation)
        if deeper is not None:
            yield from marked(marks, deeper, f"{prefix}{name}.")
        elif mark_of(field) in marks:
            yield f"{prefix}{name}"


PLACING = tuple(marked([PLACES, COSTS]))
"""Keys that decide where and how a run is executed, but not its results."""
COST_KEYS = tuple(marked([COSTS]))
"""The keys of PLACING that change a run's time or memory; records store them."""


def cost_keys(config: RunConfig) -> dict[str, Any]:
    """The values of COST_KEYS."""
    return {key: value_of(config, key) for key in COST_KEYS}


def placing_of(config: RunConfig) -> dict[str, Any]:
    """The PLACING keys of a configuration and their values."""
    return {key: value_of(config, key) for key in PLACING}


def resolved(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values without placing keys, hence without paths of this machine."""
    tree = named(config)
    if config.model.source == "folder":
        tree["model"]["location"] = None  # a path; the record stores the hash of the weights instead
    return _text_by_name(tree)


def named(config: RunConfig) -> dict[str, Any]:
    """The plain values that name a run or are inert: enough to rebuild its configuration on another machine."""
    return _without(config.model_dump(), PLACING)


def inert_keys(config: RunConfig) -> frozenset[str]:
    """The dotted keys that have no effect, given the other values of the run."""
    sections = {name: getattr(config, name) for name in type(config).model_fields}
    found = {
        f"{name}.{key}" for name, section in sections.items() if isinstance(section, Section) for key in section.inert()
    }
    return frozenset(found | {rule.key for rule in INERT_ACROSS if rule.holds(config)})


def naming(config: RunConfig) -> dict[str, Any]:
    """The plain values that name a run: runs with equal values have equal results."""
    return _text_by_name(_without(named(config), inert_keys(config)))


def _text_by_name(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace the path of eval.text by its file name, since the folder differs between machines."""
    text = tree["eval"].get("text")
    return tree if text is None else {**tree, "eval": {**tree["eval"], "text": Path(text).name}}


def run_id(config: RunConfig) -> str:
    """The run's id, 16 hexadecimal digits, which is also the name of its folder."""
    return _id(naming(config))


def recorded_id(tree: Mapping[str, Any], inert: Iterable[str]) -> str:
    """The id of a recorded run, from the plain values (`resolved`) and the inert keys that its record stores.

    The current configuration cannot be used instead: keys added since then would change the id.
    """
    return _id(_without(tree, frozenset(inert)))


def _id(tree: Mapping[str, Any]) -> str:
    return sha256_of(tree)[:16]


def field_of(key: str) -> FieldInfo:
    """The field of a dotted key that every run has. Raises KeyError for others, such as a single method's keys."""
    kind: type[Section] = RunConfig
    *sections, name = key.split(".")
    for section in sections:
        deeper = section_type(kind.model_fields[section].annotation)
        if deeper is None:
            raise KeyError(key)
        kind = deeper
    return kind.model_fields[name]


def value_of(config: RunConfig, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """A copy of the configuration in which some dotted keys have other values, which are not validated."""
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section:
            config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
        else:
            config = config.model_copy(update={name: value})
    return config


def placed(tree: Mapping[str, Any], placing: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a tree of plain values with these dotted keys set."""
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for key, value in placing.items():
        section, _, name = key.rpartition(".")
        (made.setdefault(section, {}) if section else made)[name] = value
    return made


def unplaced(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a tree without placing keys, whose values in a received file belong to another machine."""
    return _without(tree, PLACING)


@lru_cache(maxsize=1024)
def _grouped(keys: tuple[str, ...] | frozenset[str]) -> dict[str, set[str]]:
    """Section -> its keys; keys outside sections are listed under an empty name."""
    found: dict[str, set[str]] = {}
    for key in keys:
        section, _, name = key.rpartition(".")
        found.setdefault(section, set()).add(name)
    return found


def _without(tree: Mapping[str, Any], keys: tuple[str, ...] | frozenset[str]) -> dict[str, Any]:
    """A copy of the tree without these dotted keys and without sections that become empty."""
    left_out = _grouped(keys)
    made: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            value = {key: item for key, item in value.items() if key not in left_out.get(name, ())}
            if not value:
                continue
        elif name in left_out.get("", ()):
            continue
        made[name] = value
    return made
