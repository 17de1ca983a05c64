"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sdsbench.core.errors import SdsbenchError


@dataclass(frozen=True)
class Finding:
    """One point of a contract: whether it holds (None: it does not apply, or it is a fact and no demand), and why."""

    point: str
    holds: bool | None
    text: str

    def __str__(self) -> str:
        return f"{ {True: 'holds', False: 'FAILS', None: '-'}[self.holds]:<6} {self.point:<12} {self.text}"


def findings(points: Mapping[str, Callable[[], Finding]]) -> Iterator[Finding]:
    """The points one after the other; what a point raises is a finding like any other."""
    for name, check in points.items():
        try:
            yield check()
        except SdsbenchError as error:
            yield Finding(name, False, str(error))
        except Exception as error:  # a plugin's code may raise anything
            yield Finding(name, False, f"{type(error).__name__}: {error}")
