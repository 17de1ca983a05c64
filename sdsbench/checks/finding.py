"""Result of a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sdsbench.core.errors import SdsbenchError


@dataclass(frozen=True)
class Finding:
    """Result for one point of a contract: whether it holds (None: not applicable, or a measured fact without a demand),
    and why."""

    point: str
    holds: bool | None
    text: str

    def __str__(self) -> str:
        return f"{ {True: 'holds', False: 'FAILS', None: '-'}[self.holds]:<6} {self.point:<12} {self.text}"


def findings(points: Mapping[str, Callable[[], Finding]]) -> Iterator[Finding]:
    """Check the points in order; an exception in a point becomes a failed finding."""
    for name, check in points.items():
        try:
            yield check()
        except SdsbenchError as error:
            yield Finding(name, False, str(error))
        except Exception as error:  # a plugin's code may raise anything
            yield Finding(name, False, f"{type(error).__name__}: {error}")
