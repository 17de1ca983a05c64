"""Read YAML files from others: limits on size and nesting, and one error type for all faults.

With aliases, a text of one kilobyte can stand for a thousand million values, too many to walk through. So the values
are counted, with every alias expanded, before any are built. The length of numbers is limited too: `1:1:1` is a number
in base 60, and a long one takes minutes to read; Python writes no whole number of more than 4300 digits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sdsbench.core.errors import DamagedFile
from sdsbench.core.limits import Limit
from sdsbench.core.reading import read_text
from sdsbench.core.texts import is_text

BYTES, DEPTH, NODES = 1_000_000, 32, 100_000
"""Limits of one YAML file: size in bytes, depth of nesting, number of values with every alias expanded."""
DIGITS = 200  # largest length of a number
_NUMBER = re.compile(r"[-+.0-9][-+.:_0-9a-zA-Z]*")  # texts that YAML may read as a number or date: 0xFF, 1_000, 1:30


def file_problem(path: Path) -> str:
    """The accepted size or nesting, if a YAML file exceeds it; empty for a file that may be read."""
    if path.stat().st_size > BYTES:
        return f"a file of at most {BYTES:,} bytes"
    try:
        return nesting_problem(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return ""  # the reader raises an error for it


def nesting_problem(text: str) -> str:
    """The accepted nesting, values, numbers or tags, if a YAML text violates one of them; empty for a text that may be
    read. Tags (`!!bool x`) are refused: if the text does not fit its tag, loaders raise errors of many types.
    """
    depth, sizes, open_anchors, total = 0, dict[str, int](), list[tuple[int, str | None, int]](), 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                open_anchors.append((depth, event.anchor, total))
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
                _, anchor, before = open_anchors.pop()
                if anchor:
                    sizes[anchor] = total - before + 1
            if isinstance(event, yaml.AliasEvent):
                total += sizes.get(str(event.anchor), 1)
            elif isinstance(event, yaml.NodeEvent):
                total += 1
            if getattr(event, "tag", None) is not None:
                return f"values without tags; {str(event.tag)[:60]} is one"
            long = isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > DIGITS
            if long and _NUMBER.fullmatch(event.value):
                return f"numbers of at most {DIGITS} characters"
            if not is_text(str(getattr(event, "value", ""))):
                return "text of whole characters; half of a surrogate pair is none"
            if depth > DEPTH:
                return f"values nested at most {DEPTH} deep"
            if total > NODES:
                return f"at most {NODES:,} values, aliases written out"
    except (yaml.YAMLError, RecursionError):
        return ""  # the reader raises an error for it
    return ""


def read_yaml(path: Path, limit: Limit) -> Any:
    """The values in a YAML file. Raises DamagedFile if the file is not YAML, too large, or nested too deep."""
    text = read_text(path, limit)
    if accepted := nesting_problem(text):
        raise DamagedFile(f"{path}: accepted: {accepted}.")
    try:
        return yaml.safe_load(text)
    except Exception as error:  # besides its own errors, PyYAML raises those of converting dates and numbers
        raise DamagedFile(f"{path}: not YAML ({' '.join(str(error).split())[:200]}).") from None
