"""Describe in words which values a key accepts, from its type and bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from sdsbench.core.section import Accepts

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
NUMBERS = ("no", "one", "two", "three", "four")


def accepted(field: FieldInfo) -> str:
    """`a whole number from 1, or null`, `two numbers from 0 to below 1`, `adamw, momentum, sgd`."""
    given = next((item.words for item in field.metadata if isinstance(item, Accepts)), None)
    text = given or describe(field.annotation, field.metadata)
    return f"{text} such as {field.examples[0]}" if field.examples else text


def choices(annotation: Any) -> list[str]:
    """The texts that an annotation lists as a Literal (also or-ed with None); empty for others."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [choice for argument in get_args(annotation) if argument is not str for choice in choices(argument)]


def describe(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type with its bounds in words."""
    origin, arguments, bounds = get_origin(annotation), get_args(annotation), list(_bounds(metadata))
    if origin is Annotated:
        words = [item.description for item in arguments[1:] if isinstance(item, FieldInfo) and item.description]
        return " ".join([describe(arguments[0], [*arguments[1:], *bounds]), *words])
    if origin is Literal:
        names = [str(value) for value in arguments]
        return " or ".join(names) if len(names) < 3 else ", ".join(names)
    if annotation in WORDS:
        return WORDS[annotation] + _limits(bounds)
    if origin is list:
        return _list(describe(arguments[0]), bounds)
    if origin is not dict and arguments:
        return _union(arguments, bounds)
    return "keys and values"


def _union(arguments: tuple[Any, ...], bounds: list[Any]) -> str:
    texts = [describe(argument, bounds) for argument in arguments if argument is not NoneType]
    text = " or ".join(texts)
    return text if NoneType not in arguments else f"{text}, or null"


def _list(item: str, bounds: list[Any]) -> str:
    lowest = next((bound.min_length for bound in bounds if isinstance(bound, MinLen)), 0)
    highest = next((bound.max_length for bound in bounds if isinstance(bound, MaxLen)), None)
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers"), ("a text", "texts")):
        if item.startswith(one):
            items = many + item.removeprefix(one)
            break
    else:
        items = f"values, each {item}"
    if lowest and lowest == highest:
        return f"{NUMBERS[lowest]} {items}"
    return f"a list of {items}" + (f", at least {NUMBERS[lowest]}" if lowest else "")


def _bounds(metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _bounds(item.metadata)
        elif isinstance(item, Ge | Gt | Le | Lt | MinLen | MaxLen):
            yield item


def _limits(bounds: Iterable[Any]) -> str:
    texts = []
    for bound in bounds:
        match bound:
            case Ge(ge=value):
                texts.append(f" from {value:g}")
            case Gt(gt=value):
                texts.append(f" above {value:g}")
            case Le(le=value):
                texts.append(f" to {value:g}")
            case Lt(lt=value):
                texts.append(f" to below {value:,}" if isinstance(value, int) else f" to below {value:g}")
            case MinLen(min_length=1):
                texts.append(" that is not empty")
    return "".join(texts)
