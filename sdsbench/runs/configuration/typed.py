"""Plain dicts -> dataclasses, strictly: unknown keys, missing keys and wrong types are all collected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from sdsbench.core.errors import Problem
from sdsbench.core.spelling import nearest
from sdsbench.methods import base as methods
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks


def typed_sections(tree: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Every section of a resolved tree as its dataclass (top-level keys as plain values), and the problems.

    A section with a problem comes with its dataclass's defaults in place of the wrong values, so that its other values
    can still be checked; without defaults it is absent.
    """
    sections: dict[str, Any] = {}
    problems: list[Problem] = []
    hints = _run_hints()
    for key in tree.keys() - hints.keys():
        problems.append(Problem(key, tree[key], ", ".join(sorted(hints)), nearest(key, hints)))
    for key in (field.name for field in dataclasses.fields(RunConfig)):
        if key not in tree:
            problems.append(Problem(key, None, describe(hints[key]), "It is missing."))
            continue
        kind, problem = _section_type(key, hints[key], tree[key])
        if problem:
            problems.append(problem)
            continue
        try:
            sections[key] = _validator(kind)(tree[key])
        except ValidationError as error:
            found = _problems(error, key, kind, tree[key])
            problems += found
            repaired = _repaired(kind, tree[key], {problem.key for problem in found}, key)
            if repaired is not None:
                sections[key] = repaired
    return sections, problems


def parse_section(kind: Any, value: Any, key: str) -> tuple[Any, list[Problem]]:
    """One dataclass from plain dicts, or None and the problems; for sections that are not part of a run."""
    try:
        return _validator(kind)(value), []
    except ValidationError as error:
        return None, _problems(error, key, kind, value)


@cache
def _run_hints() -> dict[str, Any]:
    return get_type_hints(RunConfig)


def _section_type(key: str, hint: Any, value: Any) -> tuple[Any, Problem | None]:
    """The dataclass of a section; method and task choose theirs by name."""
    registries = {"method": methods.lookup, "task": tasks.lookup}
    if key not in registries:
        return hint, None
    name = value.get("name") if isinstance(value, dict) else None
    try:
        return registries[key](str(name))[1], None
    except KeyError:
        return None, Problem(f"{key}.name", name, f"a {key} that registers itself in sdsbench/{key}s/")


@cache
def _validator(kind: Any) -> Callable[[Any], Any]:
    """A strict parser of one section: dataclasses through a model of their fields, since strict mode refuses dicts."""
    if not dataclasses.is_dataclass(kind):
        return TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python
    section: Any = kind
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {field.name: (hints[field.name], ...) for field in dataclasses.fields(kind)}
    name = getattr(kind, "__name__", "Section")
    model = create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **fields)
    return lambda value: section(**dict(model.model_validate(value)))


def _repaired(kind: Any, value: Any, wrong: set[str], key: str) -> Any:
    if not (dataclasses.is_dataclass(kind) and isinstance(value, dict)):
        return None
    section: Any = kind
    names = [field.name for field in dataclasses.fields(kind)]
    good = {name: value[name] for name in names if name in value and f"{key}.{name}" not in wrong}
    try:
        return section(**good)
    except TypeError:
        return None


def _problems(error: ValidationError, key: str, kind: Any, value: Any) -> list[Problem]:
    found = {}
    for detail in error.errors():
        path = [str(part) for part in detail["loc"] if not _is_union_tag(part)]
        name = ".".join([key, *path])
        hints = get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if detail["type"] == "extra_forbidden":
            known = [f"{key}.{field}" for field in hints]
            found[name] = Problem(name, detail["input"], f"a key of {key}: {', '.join(hints)}", nearest(name, known))
        elif detail["type"] == "missing":
            found[name] = Problem(name, None, describe(hints[path[0]]), "It is missing.")
        elif path and path[0] in hints:
            found[f"{key}.{path[0]}"] = Problem(f"{key}.{path[0]}", value[path[0]], describe(hints[path[0]]))
        else:
            found[name] = Problem(name, detail["input"], describe(kind))
    return list(found.values())


def _is_union_tag(part: Any) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str", "bool", "none"))


WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
}


def describe(hint: Any) -> str:
    """A type in words: `a number or null`, `a list of texts`."""
    if hint in WORDS:
        return WORDS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return f"a list, each {describe(arguments[0])}"
    if arguments and origin is not dict:
        return " or ".join(describe(argument) for argument in arguments)
    return "keys and values"
