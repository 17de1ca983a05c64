"""Parse KEY=VALUE overrides, in the same way for every command: Hydra's parser, with advice on invalid overrides.

`++key=value` is treated as `key=value`. In Hydra they differ only for keys that do not exist, which are errors here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.core.texts import is_text

SEARCH_PATH = "hydra.searchpath"
MOST = 100_000  # largest number of values of one key, and of runs in one sweep


def parse(words: Sequence[str], accepted: str = "key=value") -> tuple[list[Override], list[Problem]]:
    """(valid overrides, one problem for each other word); `accepted` describes in messages what a word may be."""
    parser, parsed, problems = OverridesParser.create(), [], []
    for word in words:
        line = word.removeprefix("++") if "=" in word else word
        if not is_text(word):
            problems.append(Problem("command line", word[:100], "text in UTF-8, which records can hold"))
            continue
        try:
            parsed.append(parser.parse_override(line))
        except (HydraException, ValueError) as error:  # ValueError: a number with thousands of digits
            problems.append(Problem("command line", word[:100], accepted, f"{_advice(word)}{one_line(error)}"))
    return parsed, problems


def _advice(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return f"A verb comes first: `sdsbench {word} ...`. " if word.isidentifier() else ""
    if len(value) > 60 or not key or '"' in value or "'" in value:
        return ""
    if value.startswith("[") and value.endswith("]"):
        texts = ",".join(f'"{text}"' for text in value[1:-1].split(","))
        return f"If it is a list of texts, quote them: '{key}=[{texts}]'. "
    return f"""If the value is a text, quote it twice: '{key}="{value}"'. """


def values_of(override: Override) -> list[str]:
    """The values of an override: several for a sweep (`seed=range(0,3)` gives 0, 1 and 2), otherwise one.

    Raises ValueError above MOST values, HydraException for sweeps that only Hydra can expand (glob, interval).
    """
    if not override.is_sweep_override():
        return [str(override.get_value_string())]
    value = override.value()
    if isinstance(value, RangeSweep) and value.step and (value.stop - value.start) / value.step > MOST:
        raise ValueError(f"at most {MOST:,} values; this range has {(value.stop - value.start) / value.step:,.0f}")
    return [str(text) for text in override.sweep_string_iterator()]


def quoted(value: Any) -> str:
    """A value as Hydra's parser reads it back. In its quotes, unlike in JSON, a backslash stands for itself."""
    if isinstance(value, str):
        return QuotedString(value, Quote.double).with_quotes()
    return f"[{','.join(map(quoted, value))}]" if isinstance(value, list) else json.dumps(value)


def line_of(override: Override) -> str:
    """An override in command-line syntax."""
    return str(override.input_line)


def one_line(error: Exception) -> str:
    """The first 300 characters of an error, on one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def with_search_path(words: Sequence[str], config_dirs: Sequence[str]) -> tuple[list[str], list[str]]:
    """(other words, configuration folders: those of --config-dir, then those of `hydra.searchpath=[...]`).

    Raises ConfigError if an entry is not a folder.
    """
    others = [word for word in words if not word.lstrip("+").startswith(f"{SEARCH_PATH}=")]
    if len(others) == len(words):
        return others, list(config_dirs)
    found, problems = parse([word for word in words if word not in others])
    folders = list(config_dirs)
    for override in found:
        value = override.value()
        for entry in value if isinstance(value, list) else [value]:
            folder = str(entry).removeprefix("file://")
            if Path(folder).is_dir():
                folders.append(folder)
            else:
                problems.append(Problem(SEARCH_PATH, entry, "[FOLDER, ...], folders that exist (as --config-dir)"))
    if problems:
        raise ConfigError(problems)
    return others, folders


def search_path(config_dirs: Sequence[str]) -> list[str]:
    """The override (if any) that makes Hydra search the user's folders in addition to conf/."""
    urls = [f"file://{Path(folder).resolve()}" for folder in config_dirs]
    return [f"{SEARCH_PATH}={quoted(urls)}"] if config_dirs else []


def refuse_kind(override: Override, known: Sequence[str]) -> Problem | None:
    """The problem of `+key=`, `~key` and `hydra.key=`, which Hydra accepts but a run does not; None for others.

    `known` are the keys that exist.
    """
    key = override.key_or_group
    if key.startswith(("hydra.", "hydra/")):
        return Problem(key, override.value(), "a key of a run", "Keys of Hydra itself act with -m alone.")
    if problem := chosen_by_group(override):
        return problem
    if override.type == OverrideType.CHANGE:
        return None
    change = f" It exists: {key}=VALUE sets it." if key in known and override.type == OverrideType.ADD else ""
    advice = f"Keys cannot be added or deleted.{change}"
    return Problem(key, override.input_line, "key=value for a key that exists", advice)


def chosen_by_group(override: Override) -> Problem | None:
    """The problem of a key that is set by choosing a file of conf/ (variant=paper, not protocol.variant); else None."""
    key, value = override.key_or_group, override.value()
    if key == "protocol.variant":
        return Problem(key, value, "variant=paper or variant=code", "It is chosen as a protocol is: a file of conf/.")
    if key.startswith("protocol_"):
        advice = "These files of conf/ are chosen by protocol, variant, task, model and method."
        return Problem(key, value, "a key of a run", advice)
    return None
