"""No six lines of code stand twice in the package; imports and comments do not count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import sdsbench

LINES = 6


def repeated(texts: Mapping[str, str]) -> list[list[str]]:
    """The places (file:line) of each block of LINES lines that occurs more than once."""
    places = defaultdict(list)
    for name, text in texts.items():
        numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
        code = [(n, line) for n, line in numbered if line and not line.startswith(("#", "import ", "from "))]
        for start in range(len(code) - LINES + 1):
            block = tuple(line for _, line in code[start : start + LINES])
            places[block].append(f"{name}:{code[start][0]}")
    return [found for found in places.values() if len(found) > 1]


def test_no_block_of_code_is_repeated() -> None:
    package = Path(sdsbench.__file__).parent
    texts = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    assert len(texts) > 300 and repeated(texts) == []


def test_a_repeated_block_is_found() -> None:
    block = "\n".join(f"x{number} = {number}" for number in range(LINES))
    assert repeated({"a": f"import os\n{block}", "b": f"# a comment\n\n{block}"}) == [["a:2", "b:3"]]
