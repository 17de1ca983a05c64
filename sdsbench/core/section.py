"""A section of a configuration: typed keys with bounds, a description and a mark that says whether the key names a run.

A section is a pydantic model beside the code that it configures. A key is part of a run's name (its value can change a
result), unless its type is annotated with a mark:

    device: Annotated[Literal["auto", "cpu", "cuda"], PLACES] = "auto"        says where or how a run happens
    threads: Annotated[int, COSTS] = 0                                        the same, and changes what a run costs
    source: Annotated[str, INERT]                                             is read by people alone
    epochs: Annotated[float, only_where(max_steps=None)] = Field(1.0, gt=0)   has an effect only beside other values

Nothing here imports torch: a wrong configuration is refused before anything heavy loads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from sdsbench.core.errors import Problem
from sdsbench.core.texts import text


@dataclass(frozen=True)
class Mark:
    """Whether and how a key is part of a run's name."""

    text: str

    def __str__(self) -> str:
        return self.text


NAMES, INERT = Mark("names"), Mark("inert")
PLACES, COSTS = Mark("places"), Mark("places, costs")
"""COSTS: the value changes what a run costs, and so its record keeps it."""


class _OtherThan:
    """Equal to every value but one."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return other != self.value

    def __str__(self) -> str:
        return "given" if self.value is None else f"not {text(self.value)}"

    __hash__ = None  # type: ignore[assignment]


def other_than(value: Any) -> Any:
    """For only_where: matches every value except this one."""
    return _OtherThan(value)


GIVEN = other_than(None)


@dataclass(frozen=True, eq=False)
class OnlyWhere:
    """The key names the run where each of these other keys of its section has one of the values; else it is inert."""

    accepted: Mapping[str, tuple[Any, ...]]

    def holds(self, section: Section) -> bool:
        return all(getattr(section, key) in values for key, values in self.accepted.items())

    def __str__(self) -> str:
        return " and ".join(f"{key} is {_choices(values)}" for key, values in self.accepted.items())


def only_where(**accepted: Any) -> OnlyWhere:
    """`only_where(optimizer=("adamw", "adamw8bit"), max_steps=None)`: a tuple lists values, GIVEN is all but null."""
    return OnlyWhere({key: value if isinstance(value, tuple) else (value,) for key, value in accepted.items()})


@dataclass(frozen=True)
class Accepts:
    """Text that describes accepted values, for keys whose type and bounds do not give a clear text."""

    words: str


PositiveNumber = Annotated[float, Field(gt=0)]
FromZero = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
WholeFromZero = Annotated[int, Field(ge=0)]
PathText = Annotated[
    str,
    Field(pattern=r"^[^\x00-\x1f\x7f]+$", description="that is not empty, without control characters"),
    Accepts("a text that is not empty, without control characters"),
]


TOO_LARGE = "too_large"
LARGEST: dict[type, int | float] = {int: 2**32 - 1, float: 1e30}
"""Bounds that every library accepts: 32-bit seeds, numbers whose products fit single precision."""


class Section(BaseModel):
    """Base of all sections: unknown keys, type conversion and infinite numbers are errors; instances are immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    @field_validator("*")
    @classmethod
    def _not_too_large(cls, value: Any) -> Any:
        largest = LARGEST.get(type(value))
        if largest is not None and abs(value) > largest:
            at_most = f"{largest:,}" if isinstance(largest, int) else f"{largest:g}"
            raise PydanticCustomError(TOO_LARGE, f"At most {at_most}.")
        return value

    def problems(self) -> Iterator[Problem]:
        """Yield problems that no single field's type can express: combinations of keys, files of this machine. Keys are
        dotted."""
        yield from ()

    def inert(self) -> frozenset[str]:
        """Keys that have no effect given the other values of this section."""
        conditions = _conditions(type(self))
        return frozenset(key for key, where in conditions.items() if where is None or not where.holds(self))


def mark_of(field: FieldInfo) -> Mark | OnlyWhere:
    """The mark in a field's annotation; NAMES without one."""
    return next((item for item in field.metadata if isinstance(item, Mark | OnlyWhere)), NAMES)


@lru_cache(maxsize=256)
def _conditions(kind: type[Section]) -> dict[str, OnlyWhere | None]:
    """The keys that may be inert and the condition on which they are not; None: they always are."""
    marks = {key: mark_of(field) for key, field in kind.model_fields.items()}
    return {
        key: mark if isinstance(mark, OnlyWhere) else None
        for key, mark in marks.items()
        if mark == INERT or isinstance(mark, OnlyWhere)
    }


def section_type(annotation: Any) -> type[Section] | None:
    """The section that an annotation holds (also in a list, or or-ed with None), or None."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (section_type(argument) for argument in get_args(annotation)) if get_origin(annotation) else ()
    return next((kind for kind in found if kind is not None), None)


def _choices(values: tuple[Any, ...]) -> str:
    words = [str(value) if isinstance(value, _OtherThan) else text(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
