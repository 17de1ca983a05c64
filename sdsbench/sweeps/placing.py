"""Parse placing keys (`output_root=... sweep.group_size=...`), which may be set when a planned sweep is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.field_text import accepted
from sdsbench.core.spelling import nearest
from sdsbench.runs.configuration import overrides
from sdsbench.runs.configuration.environment import with_environment
from sdsbench.runs.configuration.identity import PLACING, field_of

GROUP_SIZE = "sweep.group_size"
"""Number of runs that train side by side on a shared base: an integer from 1, or AUTO (sweeps/group.py)."""
AUTO = "auto"
KEYS = (*(key for key in PLACING if key not in ("force", "plugins")), GROUP_SIZE)  # plugins are frozen in the plan


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Placing keys and their values. Raises ConfigError for any other key, since a plan's runs are frozen."""
    placing: dict[str, Any] = {}
    parsed, problems = overrides.parse(words)
    for override in parsed:
        key, value, text = override.key_or_group, override.value(), override.get_value_string()
        if problem := overrides.refuse_kind(override, KEYS):
            problems.append(problem)
        elif key not in KEYS:
            advice = f"{nearest(key, KEYS)} Everything else is frozen in the plan.".strip()
            problems.append(Problem(key, text, f"one of {', '.join(KEYS)}", advice))
        elif wanted := refused(key, value):
            problems.append(Problem(key, text, wanted))
        else:
            placing[key] = value
    if problems:
        raise ConfigError(problems)
    return with_environment(placing)


def as_words(placing: Mapping[str, Any]) -> list[str]:
    """The words KEY=VALUE that `parse` reads as these values.

    Values are quoted, since Hydra's parser takes no spaces, commas or brackets in a plain text.
    """
    return [f"{key}={overrides.quoted(value)}" for key, value in placing.items()]


def as_settings(placing: Mapping[str, Any]) -> list[str]:
    """The same values as options of a worker (sweeps/worker.py), which reads them as JSON."""
    return [f"--set={key}={json.dumps(value, ensure_ascii=False)}" for key, value in placing.items()]


def refused(key: str, value: object) -> str | None:
    """What the key accepts, if it rejects the value; else None."""
    if key == GROUP_SIZE:
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return None if whole or value == AUTO else f"{AUTO}, or a whole number from 1"
    field = field_of(key)
    try:
        TypeAdapter(field.rebuild_annotation(), config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return accepted(field)
    return None
