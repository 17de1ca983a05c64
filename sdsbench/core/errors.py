"""Errors that users see, and the exit code that each one ends the process with.

| code | meaning |
|---|---|
| 0 | done |
| 2 | bad configuration |
| 3 | data or weights not available |
| 4 | training failed (non-finite loss, out of memory, disk full) |
| 10, 11, 12 | of `reproduce`: the same answers, within the spread of seeds, different (results/reproduction) |
| 130 | interrupted |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SdsbenchError(Exception):
    """An error with a message for users; never shown with a traceback."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One fault of a configuration: the key, its value, what is accepted, what to do."""

    key: str
    value: object
    accepted: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        return f"{self.key}={self.value!r}: accepted: {self.accepted}.{advice}"


class ConfigError(SdsbenchError):
    """Every problem of a configuration, in one message; with `shown`, the message lists at most so many of them."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], shown: int | None = None) -> None:
        self.problems, self.shown = tuple(problems), shown
        head = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"  {number}. {problem}" for number, problem in enumerate(problems[:shown], 1)]
        if len(lines) < len(problems):
            lines.append(f"  ... and {len(problems) - len(lines)} more, listed once some of these are mended")
        super().__init__("\n".join([f"bad configuration, {head}:", *lines]))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...], int | None]]:
        return type(self), (self.problems, self.shown)  # from a launcher's process to its parent


class Unavailable(SdsbenchError):
    """Data or weights are not available on this machine."""

    exit_code = 3


class TrainingFailed(SdsbenchError):
    """A run that started and could not finish; `kind` is the status of its record."""

    exit_code = 4

    def __init__(self, message: str, kind: str = "failed") -> None:
        self.kind = kind
        super().__init__(message)


class DiskRefuses(SdsbenchError):
    """The disk is full or not writable; all results written before are intact."""

    exit_code = 4


class Interrupted(SdsbenchError):
    """The run was stopped by a signal after its state was saved; `kind` is the status of its record."""

    exit_code = 130

    def __init__(self, message: str, kind: str = "preempted") -> None:
        self.kind = kind
        super().__init__(message)


class DamagedFile(SdsbenchError):
    """A record, checkpoint or plan that does not match its checksum or schema."""

    exit_code = 3


class Refused(SdsbenchError):
    """An operation that would mix or overwrite results (another code version, an owned lock, ...)."""

    exit_code = 2


class Owned(Refused):
    """Another living process works on the run."""
