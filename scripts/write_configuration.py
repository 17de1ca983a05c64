"""Write docs/configuration.md: every key of a run with accepted values, default and effect on the run's id.

    python scripts/write_configuration.py

Everything comes from the sections' classes and from conf/; a test checks that the document is what this script writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sdsbench.core.field_text import accepted
from sdsbench.core.section import INERT, Mark, Section, mark_of, section_type
from sdsbench.core.texts import text
from sdsbench.methods import base as methods
from sdsbench.methods.base import LowRankConfig
from sdsbench.runs.configuration.compose import conf_folder
from sdsbench.runs.configuration.identity import INERT_ACROSS
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "configuration.md"
HEAD = """# Keys of a run

This page lists every key of a run, with accepted values and default. It is written by `scripts/write_configuration.py`
from the classes that check the keys and from `conf/`. `sdsbench show OVERRIDES` prints all keys with the values of one
run, and that run's id.

| mark | effect of the key on a run |
|---|---|
| names | its value can change a number: it is part of the run's id |
| places | says where or how the run is made; its id is the same for every value |
| places, costs | the same, and the value changes time or memory of the run, so the record keeps it |
| inert | only people read it, or other keys copy it; not part of the id |
| names where ... | part of the id under that condition only; otherwise it has no effect |
"""
COLUMNS = "| key | accepts | default | mark | meaning |\n|---|---|---|---|---|"
TITLES = {
    "train": "Training", "eval": "Evaluation", "data": "Data", "seeds": "Seeds", "model": "Model", "tracker": "Tracker",
    "probe": "Probes",
}  # fmt: skip


def document() -> str:
    """The whole page."""
    conf = yaml.safe_load((conf_folder() / "config.yaml").read_text())
    plain = {key: field for key, field in RunConfig.model_fields.items() if section_type(field.annotation) is None}
    parts = [HEAD, "## The run itself\n", _table("", plain, conf)]
    for name in ("train", "eval", "data", "seeds", "probe"):
        parts += [f"## {TITLES[name]}: `{name}`\n", _table(name, _section(name).model_fields, conf[name])]
    parts += _protocol()
    for name in ("model", "tracker"):
        parts += [f"## {TITLES[name]}: `{name}`\n", _table(name, _section(name).model_fields, None)]
    return "\n".join([*parts, *_methods(), *_tasks()])


def _section(name: str) -> type[Section]:
    kind = section_type(RunConfig.model_fields[name].annotation)
    assert kind is not None
    return kind


def _protocol() -> list[str]:
    names = ", ".join(f"`{name}`" for name in _own("protocol"))
    words = f"Each file of conf/protocol gives all of them: {names}.\n"
    return ["## Protocol: `protocol`\n", words, _table("protocol", _section("protocol").model_fields, None)]


def _methods() -> Iterator[str]:
    yield "## Method: `method`\n"
    yield "Keys of every method with an adapter (of these `full_ft` has only `name` and `targets`):\n"
    common = _values("method", "lora")
    yield _table("method", LowRankConfig.model_fields, common | {"name": "the method's"})
    for name in _own("method"):
        kind, values = methods.lookup(name)[1], _values("method", name)
        own = {
            key: field
            for key, field in kind.model_fields.items()
            if key != "name" and (key not in LowRankConfig.model_fields or not _same(key, kind, values, common))
        }
        if own:
            yield f"### `method={name}`\n"
            yield _table("method", own, values)


def _same(key: str, kind: type[Section], values: Mapping[str, Any], common: Mapping[str, Any]) -> bool:
    """Whether a method has the common default and mark of a key."""
    return values[key] == common[key] and mark_of(kind.model_fields[key]) == mark_of(LowRankConfig.model_fields[key])


def _tasks() -> Iterator[str]:
    """Yield one table for each set of tasks with the same keys and defaults."""
    yield "## Task: `task`\n"
    sets: dict[str, list[str]] = {}
    for name in _own("task"):
        kind, values = tasks.lookup(name)[1], _values("task", name)
        shown = values | {"name": "the task's", "train_set": "the task's own"}
        if "members" in values:
            shown["members"] = f"{len(values['members'])} tasks"
        sets.setdefault(_table("task", kind.model_fields, shown), []).append(name)
    for table, names in sets.items():
        yield f"### {', '.join(f'`{name}`' for name in names)}\n"
        yield table


def _own(group: str) -> list[str]:
    """The choices of a group in conf/, excluding those of installed plugins."""
    root = conf_folder() / group
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def _values(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((conf_folder() / group / f"{name}.yaml").read_text())


def _table(section: str, fields: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> str:
    """A table with one line per key. If `defaults` is None, the default column refers to the choice's file."""
    lines = [COLUMNS]
    for name, field in fields.items():
        key = f"{section}.{name}" if section else name
        default = "its file's" if defaults is None else _default(defaults[name])
        cells = [f"`{key}`", accepted(field), default, _mark(key, field), field.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    words = text(value)
    return words if " " in words else f"`{words}`"


def _mark(key: str, field: Any) -> str:
    mark = mark_of(field)
    across = [rule.words for rule in INERT_ACROSS if rule.key == key]
    words = str(mark) if isinstance(mark, Mark) else f"names where {mark}"
    if mark != INERT and across:
        words += f"; not where {_joined(across)}"
    return words


def _joined(words: Sequence[str]) -> str:
    return " or where ".join(words)


if __name__ == "__main__":
    TARGET.write_text(document())
    print(TARGET.relative_to(ROOT))
