"""Read YAML files from others: limits on size and nesting, and one error type for all faults.

Aliases make a text of one kilobyte mean a thousand million values; whoever walks through them never comes to an end. So
the values are counted, with every alias written out, before any are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sdsbench.core.errors import DamagedFile
from sdsbench.core.limits import Limit
from sdsbench.core.reading import read_text

BYTES, DEPTH, NODES = 1_000_000, 32, 100_000
"""Of one YAML file: its size, how deep it may nest, and its values with every alias written out."""


def file_problem(path: Path) -> str:
    """Describes a YAML file's excessive size or nesting; empty for a file that may be read."""
    if path.stat().st_size > BYTES:
        return f"a file of at most {BYTES:,} bytes"
    try:
        return nesting_problem(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return ""  # told by who reads it


def nesting_problem(text: str) -> str:
    """What is wrong with the nesting of a YAML text, or the number of its values; empty for one that may be read."""
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
            if depth > DEPTH:
                return f"values nested at most {DEPTH} deep"
            if total > NODES:
                return f"at most {NODES:,} values, aliases written out"
    except (yaml.YAMLError, RecursionError):
        return ""  # told by who reads it
    return ""


def read_yaml(path: Path, limit: Limit) -> Any:
    """The values in a YAML file. Raises DamagedFile if the file is not YAML, too large, or nested too deep."""
    text = read_text(path, limit)
    if accepted := nesting_problem(text):
        raise DamagedFile(f"{path}: accepted: {accepted}.")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        raise DamagedFile(f"{path}: not YAML ({' '.join(str(error).split())[:200]}).") from None
