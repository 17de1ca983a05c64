"""`output_root=... sweep.group_size=...` on the command line of a planned sweep: where and how its runs happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.spelling import nearest

GROUP_SIZE = "sweep.group_size"
"""How many runs of a shared base train side by side: a whole number from 1, or AUTO (sweeps/group.py)."""
AUTO = "auto"
KEYS = {"output_root": str, "device": str, "threads": int, "data.root": str, GROUP_SIZE: object}


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Placing keys and their values. Raises ConfigError for any other key: a plan's runs are frozen."""
    placing: dict[str, Any] = {}
    problems = []
    for word in words:
        key, _, text = word.partition("=")
        try:
            value = OverridesParser.create().parse_override(word).value()
        except HydraException as error:
            problems.append(Problem("command line", word, "key=value", " ".join(str(error).split())[:200]))
            continue
        if key not in KEYS:
            advice = f"{nearest(key, KEYS)} Everything else is frozen in the plan.".strip()
            problems.append(Problem(key, text, f"one of {', '.join(KEYS)}", advice))
        elif accepted := _refused(key, value):
            problems.append(Problem(key, text, accepted))
        else:
            placing[key] = value
    if problems:
        raise ConfigError(problems)
    return placing


def _refused(key: str, value: object) -> str | None:
    """What is accepted, where the value is not."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if key == GROUP_SIZE:
        good = value == AUTO or (isinstance(value, int) and whole and value > 0)
        return None if good else f"{AUTO}, or a whole number from 1"
    if KEYS[key] is int:
        return None if whole else "a whole number"
    return None if isinstance(value, str) else "a text"
