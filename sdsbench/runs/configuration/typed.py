"""Convert plain dicts to typed sections; every unknown key, missing key and wrong value becomes a Problem."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sdsbench.core.errors import Problem
from sdsbench.core.field_text import accepted, choices
from sdsbench.core.section import TOO_LARGE, Section, section_type
from sdsbench.core.spelling import nearest
from sdsbench.methods import base as methods
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks

Kind = TypeVar("Kind", bound=Section)
_REGISTRIES = {"method": methods.lookup, "task": tasks.lookup}  # sections whose class depends on their name


def typed_run(tree: dict[str, Any]) -> tuple[RunConfig | None, list[Problem]]:
    """(RunConfig of a resolved tree, all problems within single sections).

    If there are problems, wrong values are replaced by defaults, so that checks across sections can still run; the
    RunConfig is None if even that is impossible.
    """
    values = dict(tree)
    problems: list[Problem] = []
    for key, field in RunConfig.model_fields.items():
        kind = section_type(field.annotation)
        if kind is None or key not in tree:
            continue
        section, found = None, list[Problem]()
        try:
            section, found = parse_section(_registered(key, kind, tree[key]), tree[key], key)
        except KeyError as unknown:
            found = [Problem(f"{key}.name", unknown.args[0], f"a {key} that registers itself in sdsbench/{key}s/")]
        problems += found
        if section is not None:
            values[key] = section
        else:
            del values[key]
    config, found = parse_section(RunConfig, values, "")
    problems += [problem for problem in found if problem.key in values or problem.key not in tree]
    wrong_seed = [problem.value for problem in problems if problem.key == "seed"]  # the three seeds follow it
    return config, [p for p in problems if not (p.key.startswith("seeds.") and p.value in wrong_seed)]


def parse_section(kind: type[Kind], value: Any, key: str) -> tuple[Kind | None, list[Problem]]:
    """(section built from plain dicts, its problems).

    If there are problems, wrong values are replaced by defaults; the section is None if even that is impossible.
    """
    section, problems = _validated(kind, value, key)
    if section is None and isinstance(value, dict):
        wrong = {problem.key for problem in problems}
        prefix = f"{key}." if key else ""
        section, _ = _validated(kind, {name: v for name, v in value.items() if f"{prefix}{name}" not in wrong}, key)
    if section is not None:
        known = {problem.key for problem in problems}
        problems += [problem for problem in section.problems() if problem.key not in known]
    return section, problems


def _registered(key: str, kind: type[Section], value: Any) -> type[Section]:
    """The class of a section; for method and task it depends on their name. Raises KeyError for an unknown name."""
    if key not in _REGISTRIES or not isinstance(value, dict):
        return kind
    return _REGISTRIES[key](str(value.get("name")))[1]


def _validated(kind: type[Kind], value: Any, key: str) -> tuple[Kind | None, list[Problem]]:
    try:
        return kind.model_validate(value), []
    except ValidationError as error:
        found = [_problem(detail, kind, key, value) for detail in error.errors()]
        return None, list({problem.key: problem for problem in found}.values())


def _problem(error: ErrorDetails, kind: type[Section], key: str, value: Any) -> Problem:
    """Convert a pydantic error to a Problem of the key with the wrong value."""
    field, where = None, error["loc"]
    for depth, part in enumerate(where):
        last = depth == len(where) - 1
        if isinstance(part, int):  # an element of a list of sections
            key, value, field = f"{key}.{part}", value[part], None
            continue
        name = f"{key}.{part}" if key else part
        field = kind.model_fields.get(part)
        if field is None:
            dotted = [f"{key}.{known}" if key and "=" not in key else known for known in kind.model_fields]
            return Problem(
                name, error["input"], f"a key of {key or 'a run'}: {', '.join(dotted)}", nearest(name, dotted)
            )
        if error["type"] == "missing" and last:
            return Problem(name, None, accepted(field), "It is missing.")
        key, value, deeper = name, value[part], section_type(field.annotation)
        if deeper is None:
            break
        kind = deeper
    if field is None:
        return Problem(key, value, f"keys and values: {', '.join(kind.model_fields)}")
    advice = error["msg"] if error["type"] == TOO_LARGE else _advice(field, value)
    return Problem(key, value, accepted(field), advice)


def _advice(field: Any, value: Any) -> str:
    spelling = nearest(value, choices(field.annotation)) if isinstance(value, str) else ""
    return spelling or (f"Meaning: {field.description}." if field.description else "")
